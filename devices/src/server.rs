//! The server: answers harts, hands out notifications, acknowledges epochs, parks and goes on.

use crate::access::Tag;
use crate::board::Board;
use crate::error::DevicesError;
use crate::host::DeviceHost;
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};
use quasar_abi::control::devices::DevicesReply;
use quasar_abi::doorbell::default_spins;
use quasar_abi::grants::DevicesGrants;
use quasar_abi::hart_devices::MmioMailbox;
use quasar_abi::machine::VirtioDevice;
use quasar_abi::party::{Party, PartyId, status};
use quasar_abi::report::DevicesReport;
use quasar_abi::vm::{Vm, pause};
use std::sync::atomic::Ordering;
use std::time::Duration;

const ME: PartyId = PartyId::Devices;
/// How often a paused server looks whether the harts have parked: they do not ring for it.
const PARKING: Duration = Duration::from_micros(50);

/// What a server can be asked by other threads of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Reset,
    PowerButton,
    Stats,
    Shutdown,
}

type Answer = Result<DevicesReply, DevicesError>;

/// Asks a running server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    vm: Vm,
    wishes: Sender<(Wish, Sender<Answer>)>,
}

impl ServerHandle {
    fn ask(&self, wish: Wish) -> Answer {
        let (answer, answered) = bounded(1);
        self.wishes.send((wish, answer)).map_err(|_| DevicesError::Ended)?;
        self.vm.party(ME).doorbell.ring();
        answered.recv().map_err(|_| DevicesError::Ended)?
    }

    /// Puts every device into its state after power-on. While the VM is paused.
    ///
    /// # Errors
    /// [`DevicesError::Ended`].
    pub fn reset(&self) -> Result<(), DevicesError> {
        self.ask(Wish::Reset).map(drop)
    }

    /// Presses the power key.
    ///
    /// # Errors
    /// [`DevicesError::NobodyListens`], [`DevicesError::NoPowerKey`], [`DevicesError::Ended`].
    pub fn power_button(&self) -> Result<(), DevicesError> {
        self.ask(Wish::PowerButton).map(drop)
    }

    /// Which devices there are and what they have counted.
    ///
    /// # Errors
    /// [`DevicesError::Ended`].
    pub fn stats(&self) -> Result<DevicesReport, DevicesError> {
        match self.ask(Wish::Stats)? {
            DevicesReply::Stats(report) => Ok(report),
            DevicesReply::Done => Err(DevicesError::Ended),
        }
    }

    /// Finishes what is in flight, writes back, publishes and ends the server.
    ///
    /// # Errors
    /// The first disk that could not be written back; the server ends all the same.
    pub fn shutdown(&self) -> Result<(), DevicesError> {
        match self.ask(Wish::Shutdown) {
            Err(DevicesError::Ended) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The devices of one VM and the thread that serves them.
#[derive(Debug)]
pub struct Server {
    host: DeviceHost,
    board: Board,
    wishes: Receiver<(Wish, Sender<Answer>)>,
    served: u64,
    unanswerable: u64,
    /// A process before this one may have left work undone that it was notified of.
    left_undone: bool,
}

impl Server {
    /// Attaches to a VM and takes up the saved state of each device that has one.
    ///
    /// # Errors
    /// [`DevicesError`].
    pub fn attach(
        grants: &DevicesGrants,
        virtio: &[VirtioDevice],
    ) -> Result<(Self, ServerHandle), DevicesError> {
        let host = DeviceHost::attach(grants)?;
        let mut board = Board::new(&host, virtio)?;
        let mut served = 0;
        let left_undone = pending(&host.vm).next().is_some();
        for (tag, mail) in pending(&host.vm) {
            let reply = board.reply_to(mail.gpa.get(), mail.len.get(), tag);
            if let Some(value) = reply {
                answer(mail, Some(value));
                served += 1;
            }
        }
        board.forget_replies();
        let party = host.vm.party(ME);
        party.pid.set(std::process::id());
        party.generation.fetch_add(1, Ordering::SeqCst);
        let (sender, wishes) = unbounded();
        let handle = ServerHandle { vm: host.vm.clone(), wishes: sender };
        Ok((Self { host, board, wishes, served, unanswerable: 0, left_undone }, handle))
    }

    /// Serves until it is told to shut down or every handle is gone.
    pub fn run(mut self) {
        let mut running = self.rest();
        let vm = self.host.vm.clone();
        let party = vm.party(ME);
        let spins = default_spins();
        while running {
            let seen = party.doorbell.seen();
            party.attention.swap(0, Ordering::SeqCst);
            let mut worked = self.serve();
            worked |= self.deliver_notifications();
            self.host.dma.acknowledge_epoch();
            let mut sleep = self.board.poll();
            party.progress.bump(1);
            if !self.grant_wishes() {
                break;
            }
            if vm.pause_mask.load(Ordering::SeqCst) != 0 {
                if harts_at_rest(&vm) && pending(&vm).next().is_none() {
                    running = self.park();
                    continue;
                }
                sleep = Some(PARKING);
            }
            if !worked && !spin(party, seen, spins) {
                self.board.flush();
                party.doorbell.wait(seen, sleep);
            }
        }
        party.pid.set(0);
        party.status.store(status::ABSENT, Ordering::SeqCst);
    }

    /// Answers every waiting hart; returns whether there was one.
    fn serve(&mut self) -> bool {
        let vm = self.host.vm.clone();
        let mut any = false;
        for (tag, mail) in pending(&vm) {
            let store = (mail.store.get() != 0).then(|| mail.value.get());
            let value = self.board.access(mail.gpa.get(), mail.len.get(), store, tag);
            self.unanswerable += u64::from(value.is_none());
            self.served += 1;
            answer(mail, value);
            any = true;
        }
        any
    }

    /// Takes the notifications that harts have posted and tells the cards.
    fn deliver_notifications(&self) -> bool {
        let mut any = false;
        for (slot, posted) in self.host.vm.notifications.iter().enumerate() {
            if posted.get() != 0 {
                any = true;
                let queues = posted.swap(0, Ordering::SeqCst);
                if let Some(card) = self.board.cards().get(slot) {
                    card.notify(queues);
                }
            }
        }
        any
    }

    /// Parks once no hart can ask anything any more, and goes on when every pause is lifted. Returns whether
    /// to go on at all.
    ///
    /// The order: the harts first, because a hart parks only when it has its answer; then the workers; then
    /// the states, which are published at each step; then the word that says so.
    fn park(&mut self) -> bool {
        self.deliver_notifications();
        self.host.gate.close();
        self.board.flush();
        self.host.vm.park(ME);
        self.rest()
    }

    /// At rest with the gate closed: waits until the VM runs. Returns whether to go on at all.
    fn rest(&mut self) -> bool {
        let vm = self.host.vm.clone();
        let party = vm.party(ME);
        loop {
            let seen = party.doorbell.seen();
            party.attention.swap(0, Ordering::SeqCst);
            if !self.grant_wishes() {
                return false;
            }
            if vm.try_run(ME) {
                break;
            }
            // A process started into a pause may find harts that cannot park before they have their answer.
            // While one of them runs, the VM is not at rest whatever we say.
            if pending(&vm).next().is_some() && !harts_at_rest(&vm) {
                party.status.store(status::RUNNING, Ordering::SeqCst);
                break;
            }
            party.doorbell.wait(seen, None);
        }
        if let Err(error) = self.board.take_up() {
            // The harts may run already, with devices that do not belong to them: stop before they notice.
            log::error!("{error}; the VM stays paused");
            vm.pause(pause::FAILED);
            vm.park(ME);
            return true;
        }
        self.host.dma.acknowledge_epoch();
        self.host.gate.open();
        // Notifications may have been lost with a process or left on another host. In deterministic mode they are
        // waited for, so that only a killed process loses one; and what nobody was notified of yet must wait.
        if !vm.clock.is_deterministic() || std::mem::take(&mut self.left_undone) {
            for card in self.board.cards() {
                card.notify(u64::MAX);
            }
        }
        true
    }

    /// Carries out what other threads have asked for. Returns whether to go on.
    fn grant_wishes(&mut self) -> bool {
        loop {
            let (wish, to) = match self.wishes.try_recv() {
                Ok(asked) => asked,
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => {
                    if let Err(error) = self.end() {
                        log::error!("{error}");
                    }
                    return false;
                }
            };
            let answer = match wish {
                Wish::Reset => {
                    self.board.reset();
                    Ok(DevicesReply::Done)
                }
                Wish::PowerButton => self.press_power(),
                Wish::Stats => Ok(DevicesReply::Stats(self.stats())),
                Wish::Shutdown => self.end(),
            };
            // Whoever asked may have gone; the answer matters to nobody else.
            drop(to.send(answer));
            if wish == Wish::Shutdown {
                return false;
            }
        }
    }

    fn press_power(&self) -> Answer {
        let mut answer = Err(DevicesError::NoPowerKey);
        for card in self.board.cards() {
            match card.press_power() {
                Some(true) => return Ok(DevicesReply::Done),
                Some(false) => answer = Err(DevicesError::NobodyListens),
                None => {}
            }
        }
        answer
    }

    fn stats(&self) -> DevicesReport {
        DevicesReport {
            mmio_served: self.served,
            mmio_unanswerable: self.unanswerable,
            virtio: self.board.cards().iter().map(|card| card.stats()).collect(),
        }
    }

    fn end(&mut self) -> Answer {
        self.host.gate.close();
        self.host.gate.stop();
        self.board.flush();
        let mut result = Ok(DevicesReply::Done);
        for card in self.board.cards() {
            if let Err(error) = card.finish() {
                result = Err(error);
            }
        }
        result
    }
}

/// The harts that wait for an answer.
fn pending(vm: &Vm) -> impl Iterator<Item = (Tag, &MmioMailbox)> {
    let harts = vm.harts.get() as usize;
    (0u8..)
        .zip(vm.mmio_mail.iter().take(harts))
        .filter(|(_, mail)| mail.mailbox.pending())
        .map(|(hart, mail)| (Tag { hart, posted: mail.mailbox.posted.get() }, mail))
}

fn answer(mail: &MmioMailbox, value: Option<u64>) {
    mail.value.set(value.unwrap_or(0));
    mail.status.set(u64::from(value.is_none()));
    mail.mailbox.complete();
}

fn harts_at_rest(vm: &Vm) -> bool {
    vm.actors().filter(|id| *id != ME).all(|id| vm.party(id).status.load(Ordering::SeqCst) != status::RUNNING)
}

/// Spins for a ring; returns whether one came.
fn spin(party: &Party, seen: u32, spins: u32) -> bool {
    (0..spins).any(|_| {
        std::hint::spin_loop();
        party.doorbell.seen() != seen
    })
}
