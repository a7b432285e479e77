//! The process on an errand.

use super::{Answer, BootErrand, Errand, Sheet, WORD};
use crate::daemon::check;
use crate::machine::boot::{self, Booted};
use crate::machine::segments::ToBoot;
use quasar_abi::control::channel::inherited;
use quasar_abi::grants;
use rustix::process::{Resource, Rlimit, setrlimit};
use std::io::{Read, Write};
use std::process::ExitCode;

/// Most memory of its own: the symbols of a large program, and what looking them up takes.
const MOST_DATA: u64 = 1 << 30;

/// Does an errand if that is what this process was started for.
#[must_use]
pub fn as_child() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != WORD || arguments.next().is_some() {
        return None;
    }
    let limit = Some(MOST_DATA);
    if let Err(error) = setrlimit(Resource::Data, Rlimit { current: limit, maximum: limit }) {
        log::debug!("memory is not limited: {error}");
    }
    let mut text = vec![];
    let answer = match std::io::stdin().read_to_end(&mut text) {
        Ok(_) => read(&text).and_then(carry_out),
        Err(error) => Err(error.to_string()),
    };
    let written =
        serde_json::to_vec(&answer).map(|bytes| std::io::stdout().write_all(&bytes).is_ok()).unwrap_or(false);
    Some(if written { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(text: &[u8]) -> Result<Errand, String> {
    let Sheet { errand, descriptors } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let given: Result<Vec<_>, _> = descriptors.into_iter().map(inherited).collect();
    let given = given.map_err(|error| error.to_string())?;
    grants::among(given, || serde_json::from_value(errand)).0.map_err(|error| error.to_string())
}

fn carry_out(errand: Errand) -> Answer {
    match errand {
        Errand::Examine(spec, content) => {
            check::whole(&spec, content).map_err(|error| error.to_string())?;
            boot::examine(&spec.machine, spec.slots()).map_err(|error| error.to_string())?;
            Ok(Booted::default())
        }
        Errand::Boot(errand) => {
            let BootErrand { config, virtio, grants } = *errand;
            let machine = ToBoot::attach(&grants, &config).map_err(|error| error.to_string())?;
            boot::boot(&config, &machine, virtio).map_err(|error| error.to_string())
        }
    }
}
