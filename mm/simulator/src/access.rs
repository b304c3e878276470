//! Loads and stores: by programs, which fault or not, and by threads, whose faults are resolved.

use std::sync::atomic::{AtomicU64, Ordering};

use mm::{Access, AddressSpace, Denial, Fault, FaultOutcome, PhysAddr};

use crate::entries::{ACCESSED, ADDRESS, DIRTY, LARGE, NO_EXECUTE, USER, WRITABLE};
use crate::processor::{LARGE_PAGE, Remembered, Tlb};
use crate::{Machine, PAGE};

/// A page that a CPU reaches without a look at the tables.
#[derive(Debug)]
pub struct Known {
    /// The CPU's number.
    pub cpu: u32,
    /// Which tables said so.
    pub root: PhysAddr,
    /// The page's address.
    pub at: u64,
    /// Whether it may be written to.
    pub may_write: bool,
    frame: u64,
}

impl Machine {
    /// Goes through the tables as a processor does, setting accessed and dirty bits, and uses the word there.
    /// An invalidation waits until that is done, as it does for a real processor.
    fn translate<T>(&self, root: PhysAddr, fault: Fault, used: impl FnOnce(&AtomicU64) -> T) -> Option<T> {
        let mut tlbs = self.processor.tlbs.lock().unwrap();
        let tlb = tlbs.entry(self.processor.cpu()).or_default();
        let frame = self.find(tlb, root, fault);
        if frame.is_none() {
            // A fault makes it forget what led there.
            tlb.pages.remove(&(root, fault.address & !(PAGE - 1)));
            tlb.tables.remove(&(root, fault.address & !(LARGE_PAGE - 1)));
        }
        Some(used(self.word(frame? + (fault.address & (PAGE - 1)))))
    }

    /// The frame that an address leads to, by what the CPU remembers of pages and tables, and by the tables.
    fn find(&self, tlb: &mut Tlb, root: PhysAddr, fault: Fault) -> Option<u64> {
        let (page, large) = (fault.address & !(PAGE - 1), fault.address & !(LARGE_PAGE - 1));
        if let Some(&known) = tlb.pages.get(&(root, page))
            && allowed(known.rights, fault)
        {
            return Some(known.frame);
        }
        let start = Remembered { frame: root.as_u64(), rights: WRITABLE | USER, large: false };
        let known = tlb.tables.get(&(root, large));
        let levels = if known.is_some() { 1 } else { 4 };
        let Remembered { frame: mut table, mut rights, .. } = known.copied().unwrap_or(start);
        for level in (0..levels).rev() {
            let entry = self.word(table + ((fault.address >> (12 + 9 * level)) & 511) * 8);
            let value = entry.load(Ordering::SeqCst);
            if value & 1 == 0 {
                return None;
            }
            rights = (rights & value & (WRITABLE | USER)) | ((rights | value) & NO_EXECUTE);
            table = value & ADDRESS;
            let is_page = level == 0 || value & LARGE != 0;
            if !is_page {
                let accessed = value | ACCESSED;
                entry.compare_exchange(value, accessed, Ordering::SeqCst, Ordering::SeqCst).ok()?;
                if level == 1 {
                    tlb.tables.insert((root, large), Remembered { frame: table, rights, large: false });
                }
                continue;
            }
            if !allowed(rights, fault) {
                return None;
            }
            let dirty = if fault.access == Access::Write { DIRTY } else { 0 };
            // A processor sets the bits only in the entry that it has seen.
            entry
                .compare_exchange(value, value | ACCESSED | dirty, Ordering::SeqCst, Ordering::SeqCst)
                .ok()?;
            let span = PAGE << (9 * level);
            let frame = (table & !(span - 1)) + (page & (span - 1));
            // Without the dirty bit, the next write has to walk again.
            let rights = if dirty == 0 { rights & !WRITABLE } else { rights };
            tlb.pages.insert((root, page), Remembered { frame, rights, large: level > 0 });
            return Some(frame);
        }
        None
    }

    /// The processor forgets everything, as it may at any time.
    pub fn forget_translations(&self) {
        self.processor.with_tlb(Tlb::forget);
    }

    /// Whether this CPU remembers a page with the right to that access, and so needs no tables for it.
    pub fn remembers(&self, root: PhysAddr, at: u64, access: Access) -> bool {
        let page = (root, at & !(PAGE - 1));
        let fault = self.fault(at, access);
        self.processor.with_tlb(|tlb| tlb.pages.get(&page).is_some_and(|known| allowed(known.rights, fault)))
    }

    /// Whether this CPU remembers the table of level 1 that an address is in, with the rights that it had.
    pub fn remembers_table(&self, root: PhysAddr, at: u64) -> bool {
        self.processor.with_tlb(|tlb| tlb.tables.contains_key(&(root, at & !(LARGE_PAGE - 1))))
    }

    /// What all CPUs remember of pages.
    pub fn remembered(&self) -> Vec<Known> {
        let tlbs = self.processor.tlbs.lock().unwrap();
        let of = |&cpu: &u32, tlb: &Tlb| -> Vec<Known> {
            let known = |(&(root, at), known): (&(PhysAddr, u64), &Remembered)| Known {
                cpu,
                root,
                at,
                may_write: known.rights & WRITABLE != 0,
                frame: known.frame,
            };
            tlb.pages.iter().map(known).collect()
        };
        tlbs.iter().flat_map(|(cpu, tlb)| of(cpu, tlb)).collect()
    }

    /// The word with that number in a page that a CPU remembers, as it would read it.
    pub fn word_of(&self, known: &Known, number: u64) -> u64 {
        self.word(known.frame + number * 8).load(Ordering::SeqCst)
    }

    /// What a CPU does between two polls: if it is waited for, it forgets.
    pub fn begin_poll(&self) {
        let shootdowns = self.memory.stats().shootdowns;
        self.processor.with_tlb(|tlb| {
            if std::mem::replace(&mut tlb.shootdowns, shootdowns) != shootdowns {
                tlb.forget();
            }
        });
    }

    /// One access by a program, or `None` where it faults.
    pub fn try_read(&self, root: PhysAddr, at: u64) -> Option<u64> {
        self.translate(root, self.fault(at, Access::Read), |word| word.load(Ordering::SeqCst))
    }

    /// The same for writing.
    pub fn try_write(&self, root: PhysAddr, at: u64, value: u64) -> Option<()> {
        self.translate(root, self.fault(at, Access::Write), |word| word.store(value, Ordering::SeqCst))
    }

    /// An access by a thread: tried, resolved, tried again.
    async fn access<T>(
        &self,
        space: &AddressSpace,
        fault: Fault,
        used: impl Fn(&AtomicU64) -> T,
    ) -> Result<T, Denial> {
        loop {
            if let Some(result) = self.translate(space.root(), fault, &used) {
                return Ok(result);
            }
            if let FaultOutcome::Denied(why) = space.resolve(fault).await {
                return Err(why);
            }
        }
    }

    /// Reads a word as a thread does, whose faults are resolved.
    ///
    /// # Errors
    /// Why the access was denied.
    pub async fn read(&self, space: &AddressSpace, at: u64) -> Result<u64, Denial> {
        self.access(space, self.fault(at, Access::Read), |word| word.load(Ordering::SeqCst)).await
    }

    /// Writes a word; as [`read`](Self::read).
    ///
    /// # Errors
    /// As there.
    pub async fn write(&self, space: &AddressSpace, at: u64, value: u64) -> Result<(), Denial> {
        self.access(space, self.fault(at, Access::Write), |word| word.store(value, Ordering::SeqCst)).await
    }

    /// Fetches an instruction; as [`read`](Self::read).
    ///
    /// # Errors
    /// As there.
    pub async fn execute(&self, space: &AddressSpace, at: u64) -> Result<(), Denial> {
        self.access(space, self.fault(at, Access::Execute), |_| ()).await
    }

    /// A fault by whoever owns the half that the address is in.
    pub fn fault(&self, address: u64, access: Access) -> Fault {
        Fault { address, access, user: address >> 63 == 0 }
    }
}

fn allowed(rights: u64, fault: Fault) -> bool {
    (!fault.user || rights & USER != 0)
        && match fault.access {
            Access::Read => true,
            Access::Write => rights & WRITABLE != 0,
            Access::Execute => rights & NO_EXECUTE == 0,
        }
}
