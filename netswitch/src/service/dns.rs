//! DNS (RFC 1035): the names of a network's VMs. Whatever else is asked for goes to the VM's way out.

use super::leases::Leases;
use quasar_abi::address_plan::{DOMAIN, MASK, RESOLVER};
use simple_dns::rdata::{A, PTR, RData};
use simple_dns::{CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE};
use std::net::Ipv4Addr;

/// Seconds for which an answer is believed: an address may turn out to be another's.
const TTL_S: u32 = 5;

/// What becomes of a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This is the answer.
    Answer(Vec<u8>),
    /// It is not ours to answer.
    Outside,
    /// It is no question.
    Nonsense,
}

/// Whose a name is.
enum Zone {
    /// One of our VMs' by this label.
    Vm(String),
    /// The one of this address.
    Address(Ipv4Addr),
    /// Not known here; nobody outside can know it either when it is `ours`.
    Unknown { ours: bool },
}

fn zone(name: &Name<'_>, network: &str, leases: &Leases) -> Zone {
    let labels: Vec<String> =
        name.as_bytes().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    match labels[..] {
        [vm] | [vm, DOMAIN] if !leases.named(vm).is_empty() => Zone::Vm(vm.to_owned()),
        [vm, of] if of == network && !leases.named(vm).is_empty() => Zone::Vm(vm.to_owned()),
        [_] | [_, DOMAIN] => Zone::Unknown { ours: true },
        [d, c, b, a, "in-addr", "arpa"] => {
            let address = format!("{a}.{b}.{c}.{d}").parse::<Ipv4Addr>();
            match address {
                Ok(address) if address & MASK == RESOLVER & MASK => Zone::Address(address),
                _ => Zone::Unknown { ours: false },
            }
        }
        [_, of] if of == network => Zone::Unknown { ours: true },
        _ => Zone::Unknown { ours: false },
    }
}

/// Sections of a question, by what its header says: one question and nothing else, but perhaps EDNS's record.
fn is_question(message: &[u8]) -> bool {
    let Some((header, _)) = message.split_first_chunk::<12>() else { return false };
    let [_, _, flags, _, counts @ ..] = *header;
    let response = flags & 0x80 != 0;
    !response && matches!(counts, [0, 1, 0, 0, 0, 0, 0, 0..=2])
}

/// Answers a VM's question. `way_out`: somebody else may know what is not known here.
#[must_use]
pub fn answer(message: &[u8], network: &str, leases: &Leases, way_out: bool) -> Verdict {
    if !is_question(message) {
        return Verdict::Nonsense;
    }
    let Ok(asked) = Packet::parse(message) else { return Verdict::Nonsense };
    let [question] = &asked.questions[..] else { return Verdict::Nonsense };
    if asked.opcode() != OPCODE::StandardQuery
        || !matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY)
    {
        return refuse_or_forward(&asked, RCODE::NotImplemented, way_out);
    }
    let wants = |kind: TYPE| matches!(question.qtype, QTYPE::ANY) || question.qtype == QTYPE::TYPE(kind);
    let record = |data| ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL_S, data);
    let mut reply = begin(&asked);
    match zone(&question.qname, network, leases) {
        Zone::Vm(vm) => {
            // No other record: the name is there, and this is all that there is of it.
            if wants(TYPE::A) {
                let addresses = leases.named(&vm);
                reply.answers.extend(addresses.into_iter().map(|address| record(RData::A(A::from(address)))));
            }
            finish(&reply)
        }
        Zone::Address(address) => {
            let Some((_, lease)) = leases.owner(address) else {
                *reply.rcode_mut() = RCODE::NameError;
                return finish(&reply);
            };
            let name = format!("{}.{DOMAIN}", lease.name);
            let Ok(name) = Name::new(&name) else { return Verdict::Nonsense };
            if wants(TYPE::PTR) {
                reply.answers.push(record(RData::PTR(PTR(name))));
            }
            finish(&reply)
        }
        Zone::Unknown { ours } => {
            let code = if ours { RCODE::NameError } else { RCODE::Refused };
            refuse_or_forward(&asked, code, way_out)
        }
    }
}

fn begin<'a>(asked: &Packet<'a>) -> Packet<'a> {
    let mut reply = asked.clone().into_reply();
    reply.additional_records.clear();
    reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER | PacketFlag::RECURSION_AVAILABLE);
    if asked.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    reply
}

fn finish(reply: &Packet<'_>) -> Verdict {
    // A question that was read can be written.
    reply.build_bytes_vec_compressed().map_or(Verdict::Nonsense, Verdict::Answer)
}

fn refuse_or_forward(asked: &Packet<'_>, code: RCODE, way_out: bool) -> Verdict {
    if way_out {
        return Verdict::Outside;
    }
    let mut reply = begin(asked);
    *reply.rcode_mut() = code;
    finish(&reply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ethernet::Mac;
    use proptest::prelude::*;
    use simple_dns::Question;
    use std::time::Instant;

    fn leases() -> Leases {
        let mut leases = Leases::default();
        for (n, name) in [(1, "a"), (2, "b")] {
            let wish = Some(Ipv4Addr::new(10, 0, 2, 40 + n));
            leases.attach(Mac([2, 0, 0, 0, 0, n]), name, wish, Instant::now()).expect("an address");
        }
        leases
    }

    fn question(name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(0x1234);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let name = Name::new(name).expect("a name");
        packet.questions.push(Question::new(name, kind.into(), CLASS::IN.into(), false));
        packet.build_bytes_vec().expect("a question")
    }

    fn asked(name: &str, kind: TYPE, way_out: bool) -> (RCODE, Vec<String>) {
        let verdict = answer(&question(name, kind), "lan", &leases(), way_out);
        let Verdict::Answer(bytes) = verdict else { panic!("{name}: {verdict:?}") };
        let reply = Packet::parse(&bytes).expect("an answer");
        assert_eq!((reply.id(), reply.questions.len()), (0x1234, 1));
        assert!(reply.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_DESIRED));
        let text = |record: &ResourceRecord<'_>| match &record.rdata {
            RData::A(a) => Ipv4Addr::from(a.clone()).to_string(),
            RData::PTR(name) => name.0.to_string(),
            other => panic!("{other:?}"),
        };
        (reply.rcode(), reply.answers.iter().map(text).collect())
    }

    #[test]
    fn vms_are_found_by_name_and_address_whatever_the_way_out() {
        for way_out in [false, true] {
            for name in ["b", "B", "b.internal", "b.lan", "b.INTERNAL"] {
                assert_eq!(
                    asked(name, TYPE::A, way_out),
                    (RCODE::NoError, vec!["10.0.2.42".into()]),
                    "{name}"
                );
            }
            // The name is there and has no such record: nobody else is asked.
            assert_eq!(asked("b", TYPE::AAAA, way_out), (RCODE::NoError, vec![]));
            let reverse = asked("42.2.0.10.in-addr.arpa", TYPE::PTR, way_out);
            assert_eq!(reverse, (RCODE::NoError, vec!["b.internal".into()]));
            assert_eq!(asked("99.2.0.10.in-addr.arpa", TYPE::PTR, way_out), (RCODE::NameError, vec![]));
        }
    }

    #[test]
    fn what_is_not_known_here_goes_outside_or_is_refused() {
        let foreign =
            ["c", "c.internal", "c.lan", "b.dmz", "example.org", "b.example.org", "1.1.1.1.in-addr.arpa"];
        for name in foreign {
            let verdict = answer(&question(name, TYPE::A), "lan", &leases(), true);
            assert_eq!(verdict, Verdict::Outside, "{name}");
        }
        for (name, code) in [
            ("c", RCODE::NameError),
            ("c.internal", RCODE::NameError),
            ("c.lan", RCODE::NameError),
            ("example.org", RCODE::Refused),
            ("999.2.0.10.in-addr.arpa", RCODE::Refused),
        ] {
            assert_eq!(asked(name, TYPE::A, false), (code, vec![]), "{name}");
        }
    }

    #[test]
    fn answers_and_crowds_of_questions_are_nonsense() {
        let mut message = question("b", TYPE::A);
        message[2] |= 0x80;
        assert_eq!(answer(&message, "lan", &leases(), true), Verdict::Nonsense);
        for at in [4, 6, 8, 10] {
            let mut message = question("b", TYPE::A);
            message[at] = 0xff;
            assert_eq!(answer(&message, "lan", &leases(), true), Verdict::Nonsense, "count at {at}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer_or_none(
            bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..40, byte: u8, cut in 0usize..60
        ) {
            let leases = leases();
            drop(answer(&bytes, "lan", &leases, false));
            let mut message = question("b.internal", TYPE::A);
            if let Some(to) = message.get_mut(at) { *to = byte }
            message.truncate(cut);
            if let Verdict::Answer(reply) = answer(&message, "lan", &leases, false) {
                prop_assert!(reply.len() <= 512);
            }
            let pointers = [&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &bytes].concat();
            drop(answer(&pointers, "lan", &leases, false));
        }
    }
}
