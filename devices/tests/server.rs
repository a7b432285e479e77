//! The server as harts and the supervisor see it.

mod kit;

use kit::driver::{BUFFERS, Desc, Driver, WRITE};
use kit::{Bus, Machine, wait_until};
use quasar_abi::console::UART_CONSOLE;
use quasar_abi::machine::{IRQ_UART, PLIC, SYSCON, UART, VirtioDevice};
use quasar_abi::party::{PartyId, attention, status};
use quasar_abi::vm::{pause, request};
use quasar_devices::{DevicesError, Server, ServerHandle};
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

const ME: PartyId = PartyId::Devices;

struct Served<'a> {
    machine: &'a Machine,
    handle: ServerHandle,
    thread: JoinHandle<()>,
}

impl<'a> Served<'a> {
    fn start(machine: &'a Machine, virtio: &[VirtioDevice]) -> Self {
        let (server, handle) = Server::attach(&machine.grants, virtio).expect("attach");
        Self { machine, handle, thread: std::thread::spawn(move || server.run()) }
    }

    /// As a hart: posts, rings, waits.
    fn access(&self, hart: usize, gpa: u64, len: u32, store: Option<u64>) -> Result<u64, u64> {
        let mail = post(self.machine, hart, gpa, len, store);
        self.machine.vm.party(ME).doorbell.ring();
        wait_until("an answer", || mail.mailbox.wait(1000, || false));
        match mail.status.get() {
            0 => Ok(mail.value.get()),
            status => Err(status),
        }
    }

    fn end(self) {
        self.handle.shutdown().expect("shutdown");
        self.thread.join().expect("no panic");
        assert_eq!(self.machine.vm.party(ME).status.get(), status::ABSENT);
    }
}

fn post(
    machine: &Machine,
    hart: usize,
    gpa: u64,
    len: u32,
    store: Option<u64>,
) -> &quasar_abi::hart_devices::MmioMailbox {
    let mail = &machine.vm.mmio_mail[hart];
    mail.gpa.set(gpa);
    mail.len.set(len);
    mail.store.set(u32::from(store.is_some()));
    mail.value.set(store.unwrap_or(0));
    mail.mailbox.post();
    mail
}

fn enable_uart_interrupt(served: &Served<'_>) {
    for (offset, value) in [(4 * u64::from(IRQ_UART), 1), (0x2080, 1 << IRQ_UART)] {
        served.access(0, PLIC.base + offset, 4, Some(value)).expect("plic");
    }
}

#[test]
fn harts_are_answered_and_nothing_answers_where_nothing_is() {
    let machine = Machine::new(2);
    let served = Served::start(&machine, &[]);
    assert_eq!(served.access(0, UART.base + 5, 1, None), Ok(0x60));
    assert_eq!(served.access(1, UART.base + 5, 1, None), Ok(0x60));
    assert_eq!(served.access(0, 0x4000_0000, 4, None), Err(1));
    assert_eq!(served.access(0, PLIC.base + 4, 1, None), Err(1), "odd size");
    assert_eq!(served.access(0, PLIC.base, 3, Some(0)), Err(1));
    assert_eq!(served.access(1, 0x1000_1008, 4, None), Ok(0), "an empty slot");
    for byte in b"out\n" {
        served.access(0, UART.base, 1, Some(u64::from(*byte))).expect("uart");
    }
    wait_until("output", || machine.console_text(UART_CONSOLE) == "out\n");
    served.end();
}

#[test]
fn input_raises_a_line_that_a_claim_and_a_read_lower() {
    let machine = Machine::new(1);
    let served = Served::start(&machine, &[]);
    enable_uart_interrupt(&served);
    served.access(0, UART.base + 1, 1, Some(1)).expect("uart");
    assert_eq!(machine.vm.hart_control[0].lines.get(), 0);
    machine.console(UART_CONSOLE).push_input(b"k");
    machine.vm.party(ME).doorbell.ring();
    wait_until("SEIP", || machine.vm.hart_control[0].lines.load(Ordering::SeqCst) == 1 << 9);
    assert_ne!(machine.vm.party(PartyId::Hart(0)).attention.get() & attention::INTERRUPT, 0);
    let claim = PLIC.base + 0x20_1004;
    assert_eq!(served.access(0, claim, 4, None), Ok(IRQ_UART.into()));
    assert_eq!(machine.vm.hart_control[0].lines.get(), 0);
    assert_eq!(served.access(0, UART.base, 1, None), Ok(b'k'.into()));
    served.access(0, claim, 4, Some(IRQ_UART.into())).expect("plic");
    assert_eq!(machine.vm.hart_control[0].lines.get(), 0);
    served.end();
}

#[test]
fn timers_and_software_interrupts_reach_their_hart() {
    let machine = Machine::new(2);
    let served = Served::start(&machine, &[]);
    wait_until("power-on", || machine.vm.hart_control[1].mtimecmp.get() == u64::MAX);
    served.access(0, 0x200_4008, 8, Some(77)).expect("mtimecmp");
    served.access(0, 0x200_0004, 4, Some(1)).expect("msip");
    assert_eq!(machine.vm.hart_control[1].mtimecmp.get(), 77);
    assert_eq!(machine.vm.hart_control[1].lines.get(), 1 << 3);
    let called = machine.vm.party(PartyId::Hart(1)).attention.get();
    assert_eq!(called & (attention::TIMER | attention::INTERRUPT), attention::TIMER | attention::INTERRUPT);
    let (first, second) = (served.access(0, 0x200_bff8, 8, None), served.access(0, 0x200_bff8, 8, None));
    assert!(first <= second);
    served.access(0, 0x200_0004, 4, Some(0)).expect("msip");
    assert_eq!(machine.vm.hart_control[1].lines.get(), 0);
    served.end();
}

#[test]
fn the_finisher_asks_the_supervisor() {
    let machine = Machine::new(1);
    let served = Served::start(&machine, &[]);
    served.access(0, SYSCON.base, 4, Some(0x5555)).expect("syscon");
    assert_eq!(machine.vm.guest_request.get(), request::POWEROFF);
    assert_eq!(machine.vm.pause_mask.get(), pause::GUEST);
    machine.vm.wait_at_rest(Duration::from_secs(60)).expect("parks");
    served.end();
}

#[test]
fn a_pause_waits_for_harts_that_wait_for_an_answer() {
    let machine = Machine::new(1);
    let hart = machine.vm.party(PartyId::Hart(0));
    hart.status.set(status::RUNNING);
    machine.vm.pause(pause::USER);
    // A process that is started into a pause answers the hart that cannot park without it.
    let mail = post(&machine, 0, UART.base + 7, 1, Some(0x5a));
    let served = Served::start(&machine, &[]);
    wait_until("an answer", || !mail.mailbox.pending());
    assert_eq!(machine.vm.party(ME).status.get(), status::RUNNING);
    hart.status.store(status::PARKED, Ordering::SeqCst);
    machine.vm.wait_at_rest(Duration::from_secs(60)).expect("parks");
    machine.vm.unpause(pause::USER);
    wait_until("running", || machine.vm.party(ME).status.get() == status::RUNNING);
    assert_eq!(served.access(0, UART.base + 7, 1, None), Ok(0x5a));
    served.end();
}

#[test]
fn an_epoch_is_acknowledged_and_notifications_are_taken() {
    let machine = Machine::new(1);
    {
        let mut rig = machine.board(&[VirtioDevice::Rng]);
        let driver = Driver::start(&mut rig, 0, 0);
        driver.describe(&rig, 0, 0, Desc { gpa: BUFFERS, len: 16, flags: WRITE, next: 0 });
        driver.offer(&rig, 0, 0);
    }
    let used = || machine.ram.load16(kit::driver::ring(0, 0).used + 2).expect("index");
    let served = Served::start(&machine, &[VirtioDevice::Rng]);
    wait_until("what was lost with the old process", || used() == 1);
    let closed = machine.vm.next_epoch();
    wait_until("the acknowledgement", || machine.vm.epoch_acknowledged());
    assert_eq!(machine.vm.party(ME).epoch_ack.get(), closed + 1);
    machine.ram.store16(kit::driver::ring(0, 0).avail + 2, 2).expect("index");
    machine.vm.notifications[0].fetch_or(1, Ordering::SeqCst);
    machine.vm.party(ME).doorbell.ring();
    wait_until("the posted notification", || used() == 2);
    assert_eq!(machine.vm.notifications[0].get(), 0);
    let stats = served.handle.stats().expect("stats");
    assert_eq!(stats.virtio[0].name, "virtio0.rng");
    assert!(matches!(served.handle.power_button(), Err(DevicesError::NoPowerKey)));
    served.end();
}

#[test]
fn an_access_done_by_a_killed_process_is_answered_and_not_done_again() {
    let machine = Machine::new(1);
    let served = Served::start(&machine, &[]);
    served.access(0, UART.base + 2, 1, Some(1)).expect("uart");
    machine.console(UART_CONSOLE).push_input(b"ab");
    machine.vm.party(ME).doorbell.ring();
    wait_until("input", || machine.console(UART_CONSOLE).input_tail.get() == 2);
    assert_eq!(served.access(0, UART.base, 1, None), Ok(b'a'.into()));
    served.end();
    // As after a kill between publication and answer.
    let mail = &machine.vm.mmio_mail[0];
    mail.mailbox.answered.set(mail.mailbox.posted.get() - 1);
    mail.value.set(0);
    let served = Served::start(&machine, &[]);
    wait_until("an answer", || !mail.mailbox.pending());
    assert_eq!(mail.value.get(), u64::from(b'a'));
    assert_eq!(served.access(0, UART.base, 1, None), Ok(b'b'.into()));
    served.end();
}

#[test]
fn output_of_a_killed_process_appears_once() {
    let machine = Machine::new(1);
    let mut rig = machine.board(&[]);
    b"never lost ".iter().for_each(|byte| rig.store(UART.base, 1, (*byte).into()));
    let sent = machine.slots()[2].load().expect("state");
    drop(rig);
    assert_eq!(machine.console_text(UART_CONSOLE), "", "gathered, and published as such");
    drop(machine.board(&[]));
    assert_eq!(machine.console_text(UART_CONSOLE), "never lost ");
    // As after a kill between the console's write and the publication.
    machine.slots()[2].publish(&sent.name, sent.version, &sent.bytes).expect("publish");
    let mut rig = machine.board(&[]);
    b"nor doubled".iter().for_each(|byte| rig.store(UART.base, 1, (*byte).into()));
    rig.board.flush();
    assert_eq!(machine.console_text(UART_CONSOLE), "never lost nor doubled");
}

#[test]
fn reset_puts_every_device_into_its_first_state() {
    let machine = Machine::new(1);
    let served = Served::start(&machine, &[VirtioDevice::Rng, VirtioDevice::PowerButton]);
    let first = machine.saved_states();
    enable_uart_interrupt(&served);
    served.access(0, UART.base + 1, 1, Some(2)).expect("uart");
    served.access(0, 0x200_4000, 8, Some(5)).expect("mtimecmp");
    served.access(0, 0x1000_2070, 4, Some(3)).expect("status");
    assert_ne!(machine.vm.hart_control[0].lines.get(), 0);
    assert_ne!(machine.saved_states(), first);
    machine.vm.pause(pause::GUEST);
    machine.vm.wait_at_rest(Duration::from_secs(60)).expect("parks");
    served.handle.reset().expect("reset");
    assert_eq!(machine.saved_states(), first);
    assert_eq!(machine.vm.hart_control[0].lines.get(), 0);
    assert_eq!(machine.vm.hart_control[0].mtimecmp.get(), u64::MAX);
    served.end();
}
