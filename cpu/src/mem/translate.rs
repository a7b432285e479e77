//! What an L1 miss does: probe the shared translation cache, then ask the mmu process.

use super::answers::Question;
use super::context::View;
use super::l1::Context;
use super::{Cause, Fault, MXR, Memory, SUM, Target};
use crate::trap::{Trap, cause};
use quasar_abi::clock::host_monotonic_ns;
use quasar_abi::hart_mmu::mmu_status;
use quasar_abi::party::{PartyId, attention};
use quasar_abi::tlb::{access, flag, space, tag};
use std::sync::atomic::Ordering;

/// Whether cached rights allow an access (RISC-V Privileged 1.13, 12.3.2). A no is not a fault: the mmu decides.
pub(super) fn permits(flags: u64, view: View, access: u64) -> bool {
    let has = |wanted: u64| flags & wanted == wanted;
    if !has(flag::A) {
        return false;
    }
    let translated = !matches!(view.space, space::BARE | space::MACHINE);
    if translated {
        let user_page = has(flag::U);
        let allowed = match view.privilege {
            0 => user_page,
            _ => !user_page || (access != access::FETCH && view.mstatus & SUM != 0),
        };
        if !allowed {
            return false;
        }
    }
    match access {
        access::READ => has(flag::PMP_R) && (has(flag::R) || (view.mstatus & MXR != 0 && has(flag::X))),
        access::WRITE => has(flag::PMP_W | flag::W | flag::D),
        _ => has(flag::PMP_X | flag::X),
    }
}

impl Memory {
    /// Raises the exception of an access that is refused.
    pub(super) fn refuse(&mut self, access: u64, page_fault: bool, va: u64) -> Fault {
        let cause = match (access, page_fault) {
            (access::READ, true) => cause::LOAD_PAGE,
            (access::READ, false) => cause::LOAD_ACCESS,
            (access::WRITE, true) => cause::STORE_PAGE,
            (access::WRITE, false) => cause::STORE_ACCESS,
            (_, true) => cause::FETCH_PAGE,
            (_, false) => cause::FETCH_ACCESS,
        };
        self.fault = Cause::Trap(Trap { cause, tval: va });
        Fault
    }

    /// Where `len` bytes at `va`, which do not cross a page, are.
    pub(super) fn translate(&mut self, va: u64, len: u64, access: u64) -> Result<Target, Fault> {
        let known = match access {
            access::FETCH => self.l1.fetch_gpa(self.fetch, va),
            _ => self.l1.data_gpa(self.data, va, access == access::WRITE),
        };
        if let Some(gpa) = known {
            return Ok(Target::Ram(gpa));
        }
        let (view, context) = match access {
            access::FETCH => (self.fetch_view, self.fetch),
            _ => (self.data_view, self.data),
        };
        // Of several entries of a page the one is wanted that knows of an earlier write.
        let wanted = if access == access::WRITE { flag::D } else { 0 };
        let flags = match self.own_tlb().probe(va, view.space, wanted) {
            Some(flags) if permits(flags, view, access) => {
                self.counters().l2_hits.bump(1);
                self.log(flags, access);
                self.enter(va, flags, view, context, access);
                flags
            }
            _ => {
                let question = Question { va, len, access, context };
                let (status, flags) = match self.answers.find(&question, &self.ram) {
                    Some(known) => known,
                    None => self.ask_mmu(&question, view)?,
                };
                match status {
                    mmu_status::OK => {
                        self.log(flags, access);
                        self.enter(va, flags, view, context, access);
                    }
                    mmu_status::ONCE => self.log(flags, access),
                    mmu_status::PAGE_FAULT => return Err(self.refuse(access, true, va)),
                    _ => return Err(self.refuse(access, false, va)),
                }
                flags
            }
        };
        let gpa = flags & flag::GPA | va & 0xfff;
        if flags & flag::IO == 0 && self.ram.contains(gpa, len) {
            Ok(Target::Ram(gpa))
        } else if flags & flag::IO != 0 {
            Ok(Target::Io(gpa))
        } else {
            Err(self.refuse(access, false, va))
        }
    }

    /// Marks a page that is about to be written. What L1 lets through until the next safepoint is marked by
    /// this: the epoch ends when the hart has acknowledged it and dropped what it may write.
    fn log(&self, flags: u64, access: u64) {
        if access == access::WRITE && flags & flag::IO == 0 {
            let marked = self.ram.mark(flags & flag::GPA, 1);
            if marked != 0 {
                self.counters().marked.bump(marked);
            }
        }
    }

    /// Enters a page into L1 as far as its rights go and as it is marked.
    fn enter(&mut self, va: u64, flags: u64, view: View, context: Context, access: u64) {
        if flags & flag::IO != 0 {
            return;
        }
        let gpa = flags & flag::GPA;
        if access == access::FETCH {
            self.l1.fill_fetch(context, va, gpa);
            self.executed.add(va >> 12);
        } else {
            if access == access::READ || permits(flags, view, access::READ) {
                self.l1.fill_data(context, va, gpa, false);
            }
            let writable = permits(flags, view, access::WRITE) && self.ram.needs_no_mark(gpa);
            if writable && !self.holds_tohost(gpa) {
                self.l1.fill_data(context, va, gpa, true);
            }
        }
        let small = tag(va, 0);
        let set = &self.own_tlb().small[quasar_abi::tlb::small_set(va)];
        if !set.iter().any(|entry| entry.tag.get() == small) {
            self.large.add(va >> 21);
        }
    }

    /// Whether to give up waiting: the hart is asked to park or to end. The mmu's answers may be asked for again.
    fn must_rest(&self) -> bool {
        let stop = self.vm.party(self.me()).attention.load(Ordering::Relaxed) & attention::STOP != 0;
        stop || self.vm.pause_mask.load(Ordering::Relaxed) != 0
    }

    fn await_mmu(&mut self) -> Result<(), Fault> {
        let mail = &self.vm.mmu_mail[usize::from(self.hart)].mailbox;
        if mail.wait(self.spins, || !self.must_rest()) {
            return Ok(());
        }
        self.fault = Cause::Interrupted;
        Err(Fault)
    }

    /// Waits for the answer that was left behind when the hart gave up waiting and parked. Until then the mmu
    /// may fill the hart's cache, which the hart must neither probe nor flush. Call before going on; `false`
    /// when the hart is to rest again.
    pub fn take_left_over(&mut self) -> bool {
        !self.vm.mmu_mail[usize::from(self.hart)].mailbox.pending() || self.await_mmu().is_ok()
    }

    #[cold]
    fn ask_mmu(&mut self, question: &Question, view: View) -> Result<(u64, u64), Fault> {
        let start = host_monotonic_ns();
        let hart = usize::from(self.hart);
        if self.vm.mmu_mail[hart].mailbox.pending() {
            // Left over from a wait that was given up; a request must not be posted over it.
            self.await_mmu()?;
        }
        let mail = &self.vm.mmu_mail[hart];
        mail.va.set(question.va);
        mail.space.set(view.space);
        mail.access.set(question.access);
        mail.privilege.set(view.privilege);
        mail.mstatus.set(view.mstatus);
        mail.menvcfg.set(self.menvcfg);
        mail.len.set(question.len);
        mail.mailbox.post();
        self.vm.party(PartyId::Mmu).doorbell.ring();
        self.counters().mmu_requests.bump(1);
        let answered = self.await_mmu();
        self.counters().mmu_wait_ns.bump(host_monotonic_ns().saturating_sub(start));
        answered?;
        let mail = &self.vm.mmu_mail[hart];
        let status = mail.status.get();
        if status != mmu_status::OK {
            self.answers.keep(*question, mail);
        }
        Ok((status, mail.gpa_flags.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = flag::MASK & !flag::U & !1 | flag::PMP_R | flag::PMP_W | flag::PMP_X;

    fn view(privilege: u64, mstatus: u64) -> View {
        View { space: 8 << 60, privilege, mstatus }
    }

    #[test]
    fn user_pages_need_sum_and_never_run_in_supervisor_mode() {
        let user = ALL | flag::U;
        assert!(permits(user, view(0, 0), access::FETCH));
        assert!(!permits(user, view(1, 0), access::READ));
        assert!(permits(user, view(1, SUM), access::WRITE));
        assert!(!permits(user, view(1, SUM), access::FETCH));
        assert!(!permits(ALL, view(0, 0), access::READ));
    }

    #[test]
    fn execute_only_pages_are_readable_with_mxr() {
        let execute_only = ALL & !flag::R;
        assert!(!permits(execute_only, view(1, 0), access::READ));
        assert!(permits(execute_only, view(1, MXR), access::READ));
    }

    #[test]
    fn each_pmp_right_and_each_pte_bit_is_needed() {
        for (access, bits) in [
            (access::READ, [flag::R, flag::PMP_R, flag::A].as_slice()),
            (access::WRITE, &[flag::W, flag::PMP_W, flag::A, flag::D]),
            (access::FETCH, &[flag::X, flag::PMP_X, flag::A]),
        ] {
            assert!(permits(ALL, view(1, 0), access));
            for bit in bits {
                assert!(!permits(ALL & !bit, view(1, 0), access), "{access} without {bit:#x}");
            }
        }
    }
}
