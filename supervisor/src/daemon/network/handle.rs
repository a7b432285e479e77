//! The networks as the rest of the daemon sees them.

use super::{Addresses, Answer, Attachment, Input, Keeper, LinkBoard, LinkOptions, ReportAnswer, Troubles};
use crate::children::policy::Role;
use crate::children::seat::Seat;
use crate::children::{Launcher, Questions};
use crossbeam_channel::{Sender, unbounded};
use parking_lot::Mutex;
use quasar_abi::Grant;
use quasar_abi::report::NetworksReport;
use quasar_api::ProcessInfo;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The networks as the rest of the daemon sees them.
pub struct NetworkHandle {
    inbox: Sender<Input>,
    thread: Mutex<Option<JoinHandle<()>>>,
    processes: Arc<Mutex<Vec<ProcessInfo>>>,
    /// How the links to other hosts' switches are.
    pub links: Arc<LinkBoard>,
    addresses: Addresses,
    troubles: Arc<Mutex<Troubles>>,
}

/// How long a switch may take to answer what is asked by a look at the host.
const GLANCE: Duration = Duration::from_secs(2);

impl NetworkHandle {
    /// Starts the thread; the switch is started when the first port is wanted. VMs whose network has its way out here
    /// and that end on another host are named to `ended`, when their network has gone.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        launcher: Launcher,
        directory: PathBuf,
        log: Arc<File>,
        ended: Sender<String>,
    ) -> std::io::Result<Self> {
        let (outbox, inbox) = unbounded();
        let processes = Arc::new(Mutex::new(vec![]));
        let board = Arc::<LinkBoard>::default();
        let addresses = Addresses::default();
        let troubles = Arc::<Mutex<Troubles>>::default();
        let keeper = Keeper {
            seat: Seat::new(Role::Replaceable, launcher.patience),
            launcher,
            directory,
            log,
            outbox: outbox.clone(),
            switch: None,
            generation: 0,
            looked: Instant::now(),
            born: Instant::now(),
            ports: BTreeMap::new(),
            uplinks: BTreeMap::new(),
            away: BTreeMap::new(),
            ended,
            listen: None,
            links: BTreeSet::new(),
            board: Arc::clone(&board),
            waiting: vec![],
            questions: Questions::default(),
            listening: None,
            deaf_told: None,
            listen_again: None,
            swap: None,
            shown: Arc::clone(&processes),
            addresses: Arc::clone(&addresses),
            troubles: Arc::clone(&troubles),
        };
        let thread = std::thread::Builder::new().name("network".into()).spawn(move || keeper.run(&inbox))?;
        Ok(Self {
            inbox: outbox,
            thread: Mutex::new(Some(thread)),
            processes,
            links: board,
            addresses,
            troubles,
        })
    }

    fn ask(&self, input: impl FnOnce(Answer) -> Input) -> Result<serde_json::Value, String> {
        let (send, receive) = crossbeam_channel::bounded(1);
        let answer: Answer = Box::new(move |result| drop(send.send(result)));
        let gone = || "the daemon is ending".to_owned();
        self.inbox.send(input(answer)).map_err(|_| gone())?;
        receive.recv().map_err(|_| gone())?
    }

    /// Attaches a port, making its network and uplink when they are new. Waits until frames flow.
    ///
    /// # Errors
    /// In words for people; nothing is left of the attempt.
    pub fn attach(&self, attachment: Attachment) -> Result<(), String> {
        self.ask(|answer| Input::Attach(attachment, answer)).map(drop)
    }

    /// Detaches a VM's port if it is still the one of these rings (a VM that left may be back), and ends its
    /// network's uplink with the last one.
    pub fn detach(&self, vm: &str, rings: &Grant) {
        let (vm, rings) = (vm.to_owned(), Some(rings.clone()));
        // An error says that the thread has ended, and every port with it.
        drop(self.ask(|answer| Input::Detach(vm, rings, answer)));
    }

    /// Detaches a VM's port as [`NetworkHandle::detach`] does, and tells the other hosts that the VM has ended.
    pub fn end(&self, vm: &str, rings: &Grant) {
        let (vm, rings) = (vm.to_owned(), rings.clone());
        // As above.
        drop(self.ask(|answer| Input::End(vm, rings, answer)));
    }

    /// Lets a VM's network go, wherever the VM is.
    pub fn forget(&self, vm: &str) {
        // As above.
        drop(self.ask(|answer| Input::Detach(vm.to_owned(), None, answer)));
    }

    /// Takes links from other hosts' switches from now on.
    ///
    /// # Errors
    /// When the switch cannot listen there.
    pub fn listen(&self, options: LinkOptions) -> Result<(), String> {
        self.ask(|answer| Input::Listen(options, answer)).map(drop)
    }

    /// Keeps a link to the switch at this address.
    pub fn link(&self, to: &str) {
        self.links.want(to);
        // The thread has ended when this fails, and every link with it.
        drop(self.inbox.send(Input::Link(to.to_owned())));
    }

    /// Delivers what was held for a VM that runs here now, and announces its place.
    pub fn release(&self, vm: &str) {
        // As above.
        drop(self.inbox.send(Input::Release(vm.to_owned())));
    }

    /// The VM runs on another host from now on: its port moves there. Returns whether its network still has
    /// its way out here; then [`NetworkHandle::forget`] ends that. A switch that does not answer is waited for a little:
    /// the next one is told where the VM is.
    pub fn depart(&self, vm: &str) -> bool {
        let (moved, has_moved) = crossbeam_channel::bounded(1);
        let departed = self.ask(|answer| Input::Depart(vm.to_owned(), answer, moved));
        // Without a port nothing moves, and the other end is gone.
        has_moved.recv_timeout(GLANCE).unwrap_or_default();
        departed.is_ok_and(|kept| kept.as_bool() == Some(true))
    }

    /// Exchanges the switch for this launcher's program. Answers its process and for how long no frame passed; null
    /// when there is no switch at present, and the next one will be that program.
    ///
    /// # Errors
    /// In words for people; the switch is then the program that it was.
    pub fn swap(&self, launcher: Launcher) -> Result<serde_json::Value, String> {
        self.ask(|answer| Input::Swap(launcher, answer))
    }

    /// Sends a signal to the switch, or to the passt of a VM; answers its process number.
    ///
    /// # Errors
    /// In words for people, when there is none.
    pub fn signal(&self, vm: Option<&str>, signal: i32) -> Result<serde_json::Value, String> {
        let vm = vm.map(ToOwned::to_owned);
        self.ask(|answer| Input::Signal(vm, signal, answer))
    }

    /// The switch's counters, or nothing when there is no switch.
    ///
    /// # Errors
    /// When the switch does not answer, or not soon: it may be being replaced.
    pub fn stats(&self) -> Result<Option<NetworksReport>, String> {
        let (send, receive) = crossbeam_channel::bounded(1);
        let answer: ReportAnswer = Box::new(move |result| drop(send.send(result)));
        self.inbox.send(Input::Stats(answer)).map_err(|_| "the daemon is ending".to_owned())?;
        receive.recv_timeout(GLANCE).map_err(|_| format!("the switch has not answered within {GLANCE:?}"))?
    }

    /// The switch and the programs behind uplinks.
    #[must_use]
    pub fn processes(&self) -> Vec<ProcessInfo> {
        self.processes.lock().clone()
    }

    /// What is wrong with the programs of the networks.
    #[must_use]
    pub fn troubles(&self) -> &Arc<Mutex<Troubles>> {
        &self.troubles
    }

    /// Starts at once what would be started later.
    pub fn try_now(&self) {
        // An error says that the thread has ended.
        drop(self.inbox.send(Input::TryNow));
    }

    /// The addresses of this host's VMs.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// A VM's address on its network, if the switch gave it one.
    #[must_use]
    pub fn address(&self, vm: &str) -> Option<Ipv4Addr> {
        self.addresses.lock().get(vm).copied()
    }

    /// Ends everything.
    pub fn stop(&self) {
        // An error says that it has ended already.
        drop(self.inbox.send(Input::Quit));
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            log::error!("the network thread panicked; its message is above");
        }
    }
}
