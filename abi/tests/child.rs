//! The runtime of every process, with a service that only writes down what it is told.

use parking_lot::Mutex;
use quasar_abi::control::child::{Call, ChildError, News, Service, serve};
use quasar_abi::control::devices::{Devices, DevicesCommand, DevicesRefusal, DevicesReply};
use quasar_abi::control::{CommandSender, Event, EventReceiver, Parent, Transport};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const SOON: Option<Duration> = Some(Duration::from_secs(20));

#[derive(Default)]
struct Seen {
    told: Mutex<Vec<DevicesCommand>>,
    over: AtomicBool,
    ended: AtomicBool,
}

struct Clerk {
    seen: Arc<Seen>,
    news: News<Devices>,
    /// A call that is answered later, with the next one.
    later: Option<Call<Devices>>,
    end: Result<(), DevicesRefusal>,
}

impl Service for Clerk {
    type Interface = Devices;

    fn carry_out(&mut self, command: DevicesCommand, call: Call<Devices>) {
        self.seen.told.lock().push(command.clone());
        match command {
            DevicesCommand::Reset => self.later = Some(call),
            DevicesCommand::PowerButton => call.answer(Err(DevicesRefusal::NoPowerKey)),
            _ => {
                if let Some(later) = self.later.take() {
                    later.answer(Ok(DevicesReply::Done));
                }
                self.news.notice("asked");
                call.answer(Ok(DevicesReply::Stats(Default::default())));
            }
        }
    }

    fn is_over(&self) -> bool {
        self.seen.over.load(Ordering::SeqCst)
    }

    fn end(self) -> Result<(), DevicesRefusal> {
        self.seen.ended.store(true, Ordering::SeqCst);
        self.end
    }
}

type Running = JoinHandle<Result<(), ChildError>>;

fn run(
    seen: &Arc<Seen>,
    end: Result<(), DevicesRefusal>,
) -> (CommandSender<Devices>, EventReceiver<Devices>, Running) {
    let (parent, fd) = Parent::new().expect("channel");
    let seen = Arc::clone(seen);
    let child = std::thread::spawn(move || {
        serve(fd, Transport::Socket, "1.2.3", |news| Clerk { seen, news, later: None, end })
    });
    let (_, commands, events) = parent.greet::<Devices>(SOON).expect("greet").expect("in time");
    (commands, events, child)
}

fn next(events: &EventReceiver<Devices>) -> Event<Devices> {
    events.recv(SOON).expect("event").expect("in time")
}

#[test]
fn calls_are_answered_by_number_at_once_or_later_and_the_last_one_when_all_is_done() {
    let seen = Arc::<Seen>::default();
    let (mut commands, events, child) = run(&seen, Ok(()));
    let reset = commands.send(DevicesCommand::Reset).expect("send");
    let key = commands.send(DevicesCommand::PowerButton).expect("send");
    let stats = commands.send(DevicesCommand::Stats).expect("send");
    let refusal = DevicesRefusal::NoPowerKey;
    assert_eq!(next(&events), Event::Refused { id: key, refusal });
    assert_eq!(next(&events), Event::Done { id: reset, reply: DevicesReply::Done });
    assert_eq!(next(&events), Event::Notice("asked".into()));
    assert_eq!(next(&events), Event::Done { id: stats, reply: DevicesReply::Stats(Default::default()) });
    assert!(!seen.ended.load(Ordering::SeqCst));
    let last = commands.send(DevicesCommand::Shutdown).expect("send");
    assert_eq!(next(&events), Event::Done { id: last, reply: DevicesReply::Done });
    assert!(seen.ended.load(Ordering::SeqCst), "answered before it had ended");
    child.join().expect("thread").expect("a good end");
    let told = seen.told.lock().clone();
    assert_eq!(told, [DevicesCommand::Reset, DevicesCommand::PowerButton, DevicesCommand::Stats]);
}

#[test]
fn a_service_ends_in_order_with_its_supervisor_and_when_it_is_over() {
    let seen = Arc::<Seen>::default();
    let (commands, events, child) = run(&seen, Ok(()));
    drop((commands, events));
    child.join().expect("thread").expect("a good end");
    assert!(seen.ended.load(Ordering::SeqCst));

    let seen = Arc::<Seen>::default();
    let (_commands, _events, child) = run(&seen, Ok(()));
    seen.over.store(true, Ordering::SeqCst);
    child.join().expect("thread").expect("a good end");
    assert!(seen.ended.load(Ordering::SeqCst));
}

#[test]
fn an_end_that_fails_is_told_and_is_the_process_s_failure() {
    let seen = Arc::<Seen>::default();
    let (mut commands, events, child) = run(&seen, Err(DevicesRefusal::Ended));
    let last = commands.send(DevicesCommand::Shutdown).expect("send");
    assert_eq!(next(&events), Event::Refused { id: last, refusal: DevicesRefusal::Ended });
    assert!(matches!(child.join().expect("thread"), Err(ChildError::End(_))));
}

#[test]
fn last_words_before_hello_are_heard_and_long_ones_are_cut() {
    let (parent, fd) = Parent::new().expect("channel");
    let socket = quasar_abi::control::seqpacket::SeqPacket::from_fd(fd);
    let news = News::<Devices>::new(quasar_abi::control::EventSender::new(socket));
    news.fatal(&"x".repeat(1 << 20));
    let error = parent.greet::<Devices>(SOON).expect_err("no hello").to_string();
    assert!(error.contains("xxx") && error.len() < 5000, "{}", error.len());
}
