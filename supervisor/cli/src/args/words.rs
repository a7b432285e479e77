//! Words that people bring along from other programs, and what they are here.

use super::Arguments;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};
use std::ffi::OsString;

/// Words that are no command here and that no command's name resembles, with what to type.
const HINTS: &[(&[&str], &str)] = &[
    (
        &["images", "pull", "image-ls", "templates"],
        "`--image debian` and `--image debian-disk` of `quasar run` are the images; `quasar image build debian` builds them",
    ),
    (&["build"], "`quasar image build debian` builds the guest images"),
    (
        &["up", "boot", "launch", "new", "spawn"],
        "`quasar run --image debian` makes a VM and starts it; `quasar start VM` starts one that has stopped",
    ),
    (
        &["down", "halt", "destroy"],
        "`quasar stop VM` shuts a VM down, `quasar kill VM` ends it at once, `quasar rm VM` removes it",
    ),
    (&["undefine", "prune"], "`quasar rm VM` removes a VM that has stopped, with its disks"),
    (&["reboot", "reset"], "`quasar restart VM` stops a VM and starts it again"),
    (
        &["save", "snapshot", "checkpoint", "commit", "export"],
        "`quasar suspend VM FILE` writes a VM to a file",
    ),
    (&["restore", "load", "import"], "`quasar resume FILE` brings a VM back from a file"),
    (&["log"], "`quasar logs VM` shows what its processes said, `quasar console VM` what its guest says"),
    (
        &["shell", "enter", "connect", "login", "sh"],
        "`quasar console VM` attaches to its console, `quasar ssh VM` logs in when port 22 is published",
    ),
    (&["cp", "scp", "copy", "push"], "publish port 22 and use scp; `quasar run` says with which key"),
    (
        &["port", "ports", "ip", "domifaddr"],
        "`quasar ps` lists published ports, `quasar inspect VM` everything about a VM",
    ),
    (
        &["network", "networks", "net"],
        "`quasar run --net NAME` puts a VM on a network; `quasar info` shows the host's networks",
    ),
    (&["move", "mv"], "`quasar migrate VM --to HOST:PORT` moves a VM to another host"),
    (
        &["rename"],
        "a VM keeps its name; `quasar suspend VM FILE` and `quasar resume FILE --name OTHER` give it another",
    ),
    (&["clone"], "`quasar run` another VM with a copy of the disk"),
    (
        &["status", "state", "show", "get", "dumpxml", "describe"],
        "`quasar ps` lists the VMs, `quasar inspect VM` prints everything about one",
    ),
    (
        &["wait", "events", "watch"],
        "`quasar logs --follow VM` follows a VM, `quasar stats --watch VM` what it does",
    ),
];

fn hint(word: &str) -> Option<&'static str> {
    HINTS.iter().find(|(words, _)| words.contains(&word)).map(|(_, hint)| *hint)
}

/// An error about a word that is no command gets what the word means here, instead of what it resembles.
fn with_hint(mut error: clap::Error) -> clap::Error {
    let advise = |error: &mut clap::Error, hint: &str| {
        error.remove(ContextKind::SuggestedSubcommand);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint.to_owned().into()]));
    };
    if error.kind() == ErrorKind::MissingRequiredArgument && error.to_string().contains("--image") {
        advise(
            &mut error,
            "`--image debian` is a small guest, `--image debian-disk` one on a disk of its own",
        );
    }
    if error.kind() != ErrorKind::InvalidSubcommand {
        return error;
    }
    let word = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) => word.clone(),
        _ => return error,
    };
    if let Some(hint) = hint(&word) {
        advise(&mut error, hint);
    }
    error
}

/// Reads a command line.
///
/// # Errors
/// clap's, with hints for words that other programs use; [`clap::Error::exit`] shows it.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Arguments, clap::Error> {
    let matches = Arguments::command().try_get_matches_from(words).map_err(with_hint)?;
    Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut Arguments::command()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        ["quasar"].into_iter().chain(line.split_whitespace()).map(OsString::from).collect()
    }

    #[test]
    fn what_others_users_type_is_understood() {
        for line in [
            "list",
            "ls",
            "ls -a",
            "ps -q",
            "ps --all",
            "kill web",
            "kill web mmu",
            "kill web cpu0 mmu --signal TERM",
            "start web",
            "start web db",
            "create web --image debian",
            "rm -f web",
            "rm web db",
            "delete web",
            "run -d -p 8080:80 --cpus 2 -m 512MB --name web --image debian",
            "run -it --image debian --rm",
            "run --image debian --memory 1GiB",
            "run --image debian --mem 512m",
            "inspect web",
            "version",
            "info",
            "pause web db",
            "resume web db",
            "unpause web",
            "stop web db -t 5",
            "stop -f web",
            "shutdown web",
            "restart web",
            "exec web ls -l",
            "ssh web",
            "ssh web -- ls -l",
            "attach web",
            "top web",
            "logs -f web",
            "completions zsh",
            "man /tmp/man",
            "console web",
            "remove web",
        ] {
            if let Err(error) = parse(words(line)) {
                panic!("quasar {line}: {error}");
            }
        }
    }

    #[test]
    fn an_image_that_is_taken_for_a_name_is_explained() {
        for line in ["run debian", "run", "create web"] {
            let error = parse(words(line)).expect_err(line).to_string();
            assert!(error.contains("`--image debian`"), "{line}: {error}");
        }
    }

    #[test]
    fn a_name_is_given_once() {
        assert!(parse(words("run web --name web --image debian")).is_err());
        assert!(parse(words("kill web --signal TERM")).is_err(), "a VM is no process");
    }

    #[test]
    fn hints_name_commands_that_there_are() {
        for (words, hint) in HINTS {
            for word in *words {
                let error = parse(["quasar".into(), word.into()]).expect_err(word).to_string();
                assert!(error.contains(hint), "{word}: {error}");
                assert!(!error.contains("similar"), "{word}: {error}");
            }
            for command in hint.split('`').skip(1).step_by(2).filter(|text| text.starts_with("quasar ")) {
                let name = command.split(' ').nth(1).expect("a command");
                let known = Arguments::command();
                assert!(known.find_subcommand(name).is_some(), "{command}");
            }
        }
    }
}
