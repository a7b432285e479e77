//! Copying a machine at rest into another one.

use super::Machine;
use quasar_abi::AtomicLe64;
use quasar_abi::hart::HartControl;
use quasar_abi::machine::RAM_BASE;
use quasar_abi::ram::{NotRam, PAGE_LEN};
use quasar_abi::saved::TooLarge;
use quasar_abi::vm::request;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

/// Why a machine cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Another size.
    #[error("machines of {0} and {1} bytes are no copies of each other")]
    Size(u64, u64),
    /// It is about to end or to start anew.
    #[error("the guest has just asked for a power-off or a reboot")]
    Ending,
    /// A hart waits for the devices process, which is being replaced.
    #[error("a device access is under way; try again in a moment")]
    Busy,
    /// Memory.
    #[error(transparent)]
    NotRam(#[from] NotRam),
    /// A device's state.
    #[error(transparent)]
    Device(#[from] TooLarge),
    /// The memory's file.
    #[error("the VM's memory cannot be read: {0}")]
    Io(#[from] std::io::Error),
}

/// What is state among the words by which others reach a hart.
fn hart_words(control: &HartControl) -> [&AtomicLe64; 5] {
    [&control.lines, &control.posted, &control.mtimecmp, &control.start_address, &control.start_opaque]
}

impl Machine {
    /// Becomes a copy of `other`: memory, harts, devices, time. Consoles and packet rings stay empty, since they lead
    /// outside. Both are at rest, and stay so meanwhile; the clock of this one goes on from now.
    ///
    /// # Errors
    /// [`CopyError`]; this machine is of no use then.
    pub fn copy_from(&self, other: &Self) -> Result<(), CopyError> {
        let harts = usize::try_from(other.vm.harts.get()).unwrap_or(0);
        if self.ram.len() != other.ram.len() || self.vm.harts.get() != other.vm.harts.get() {
            return Err(CopyError::Size(other.ram.len(), self.ram.len()));
        }
        if other.vm.guest_request.load(Ordering::Acquire) != request::NONE {
            return Err(CopyError::Ending);
        }
        if other.vm.mmio_mail.iter().any(|mail| mail.mailbox.posted.get() != mail.mailbox.taken.get()) {
            return Err(CopyError::Busy);
        }
        self.copy_ram(other)?;
        for hart in 0..harts {
            let (ours, theirs) = (&self.vm.hart_state[hart], &other.vm.hart_state[hart]);
            for (cell, word) in ours.next().cells().zip(theirs.current().words()) {
                cell.set(word);
            }
            ours.publish();
            let (ours, theirs) = (&self.vm.hart_control[hart], &other.vm.hart_control[hart]);
            for (cell, theirs) in hart_words(ours).into_iter().zip(hart_words(theirs)) {
                cell.set(theirs.get());
            }
            ours.hsm.set(theirs.hsm.get());
        }
        for (ours, theirs) in self.vm.notifications.iter().zip(&other.vm.notifications) {
            ours.set(theirs.get());
        }
        for (ours, theirs) in self.saved_devices().iter().zip(other.saved_devices()) {
            match theirs.load() {
                Some(saved) => ours.publish(&saved.name, saved.version, &saved.bytes)?,
                None => ours.clear(),
            }
        }
        self.copy_clock(other);
        Ok(())
    }

    fn copy_ram(&self, other: &Self) -> Result<(), CopyError> {
        let (file, offset) = other.ram_file()?;
        let mut chunk = vec![0; 256 * PAGE_LEN];
        let mut done = 0;
        while done < other.ram.len() {
            let len =
                usize::try_from(other.ram.len() - done).map_or(chunk.len(), |left| left.min(chunk.len()));
            file.read_exact_at(&mut chunk[..len], offset + done)?;
            for (page, at) in chunk[..len].chunks(PAGE_LEN).zip((RAM_BASE + done..).step_by(PAGE_LEN)) {
                if page.iter().any(|byte| *byte != 0) {
                    self.ram.write(at, page)?;
                }
            }
            done += len as u64;
        }
        Ok(())
    }

    fn copy_clock(&self, other: &Self) {
        let (ours, theirs) = (&self.vm.clock, &other.vm.clock);
        let retired = other.vm.hart_state[0].current().retired.get();
        ours.mode.set(theirs.mode.get());
        ours.ns_per_instruction.set(theirs.ns_per_instruction.get());
        ours.wall_offset_ns.set(theirs.wall_offset_ns.get());
        ours.start(theirs.ticks(retired), retired);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quasar_abi::clock::mode;
    use quasar_api::{Boot, MachineConfig};

    #[test]
    fn a_copy_has_the_same_hash_and_is_told_apart_by_a_byte() {
        let boot = Boot::Bare { elf: "none".into(), max_instructions: 0 };
        let config = MachineConfig { memory: 4 << 20, harts: 1, boot, icount: true, engine: None };
        let [one, two] = ["one", "two"]
            .map(|name| Machine::create(&format!("copy-test-{name}"), &config).expect("a machine"));
        one.vm.clock.mode.set(mode::INSTRUCTIONS);
        one.vm.clock.ns_per_instruction.set(10);
        one.vm.clock.start(77, 0);
        one.vm.clock.skip(1000);
        let state = one.vm.hart_state[0].next();
        state.retired.set(12_345);
        state.x[7].set(7);
        one.vm.hart_state[0].publish();
        one.vm.hart_control[0].mtimecmp.set(99);
        one.ram.write(RAM_BASE + 0x1f_f000, &[5; 4096]).expect("memory");
        one.saved_devices()[3].publish("rtc", 1, &[1, 2, 3]).expect("a state");
        two.copy_from(&one).expect("a copy");
        assert_eq!(two.hash().expect("hash"), one.hash().expect("hash"));
        assert_eq!(two.vm.clock.ticks(12_345), one.vm.clock.ticks(12_345));
        assert_eq!(two.vm.hart_control[0].mtimecmp.get(), 99);
        assert_eq!(two.saved_devices()[3].load(), one.saved_devices()[3].load());
        two.ram.write(RAM_BASE + 0x1f_f123, &[6]).expect("memory");
        assert_ne!(two.hash().expect("hash"), one.hash().expect("hash"));

        one.vm.ask(request::REBOOT, 0);
        assert!(matches!(two.copy_from(&one), Err(CopyError::Ending)));
    }
}
