//! Faults: what a thread wanted, and what becomes of it: peek, touch, commit.
//!
//! What can meet what is in the tables of `address_space`, `vm_object` and `page_request`.

use core::fmt;
use core::future::Future;
use core::ops::Range;

use executor::lock::{SpinGuard, Within};

use super::AddressSpace;
use super::mappings::Mappings;
use crate::address::PAGE_BYTES;
use crate::backing::Backing;
use crate::mapping::Mapping;
use crate::memory::Counters;
use crate::page_entry::{WRITABLE, rights};
use crate::settle::{Attempt, Commit, Offer, Touch, Waited, settle};
use crate::vm_object::Around;
use crate::{Advice, Frame, FrameRun, PageError, PageIndex, PageTable, Protection, VirtAddr};

/// Pages that are shown with one fault.
const NEIGHBOURS: u64 = 16;

/// What an access wants to do with memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reads data.
    Read,
    /// Writes data.
    Write,
    /// Fetches an instruction.
    Execute,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Read => "read",
            Access::Write => "write",
            Access::Execute => "execute",
        })
    }
}

/// A page fault as the processor tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The address that was touched, as it stands in CR2.
    pub address: u64,
    /// What was tried.
    pub access: Access,
    /// Whether a program in ring 3 did it.
    pub user: bool,
}

/// What became of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum FaultOutcome {
    /// The access can be tried again, and will succeed unless the mapping changes first.
    Resolved,
    /// The access cannot succeed; the thread is told why.
    Denied(Denial),
}

/// Why an access was denied. Its `Display` is a clause that fits after 'the thread ended: '.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denial {
    /// Nothing is mapped at the address.
    NoMapping,
    /// The mapping does not allow this access.
    Protection(Access),
    /// A user program named an address that is the kernel's.
    UserTouchesKernel,
    /// The page could not be loaded.
    Io {
        /// The page of the object that was wanted.
        page: PageIndex,
        /// What the pager answered.
        error: PageError,
    },
    /// What was loaded is not what was once written there: the pager has noticed.
    Corrupted {
        /// The page of the object that was wanted.
        page: PageIndex,
    },
    /// The page shows given frames, and has none now.
    ManualPageMissing,
    /// There is no memory for the page, and none can be freed.
    OutOfMemory,
    /// The page waits, by way of its pager, for whoever touched it.
    Deadlock,
    /// A thread ran over the end of its stack: into the page below the limit of one that was made by `set_stack`, or
    /// down to what lies below it. Of other stacks `mm` knows nothing and says `NoMapping`; who knows them says this.
    StackOverflow,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denial::NoMapping => f.write_str("nothing is mapped there"),
            Denial::Protection(access) => write!(f, "the mapping does not allow to {access}"),
            Denial::UserTouchesKernel => f.write_str("the address belongs to the kernel"),
            Denial::Io { page, error } => write!(f, "page {page} could not be loaded: {error}"),
            Denial::Corrupted { page } => write!(f, "the data of page {page} is corrupted"),
            Denial::ManualPageMissing => f.write_str("the page has no frame"),
            Denial::OutOfMemory => f.write_str("out of memory"),
            Denial::Deadlock => f.write_str("the page waits for whoever touched it"),
            Denial::StackOverflow => f.write_str("stack overflow"),
        }
    }
}

/// What a peek found: everything that the rest of a fault needs.
#[derive(Debug)]
pub(super) struct View {
    pub(super) shows: Backing,
    pub(super) index: u64,
    pub(super) page: VirtAddr,
    /// The pages of that which the mapping shows.
    pub(super) pages: Range<u64>,
    pub(super) protection: Protection,
    /// What the program says of its future use of the mapping.
    pub(super) advice: Advice,
    pub(super) generation: u64,
}

/// A fault on its way to be resolved.
struct Resolving<'a> {
    space: &'a AddressSpace,
    address: u64,
    access: Access,
    user: bool,
    /// Whether a large page is not asked for, or not any more.
    small: bool,
    /// Whether it was tried before: what it has waited for is mostly there.
    again: bool,
}

impl Resolving<'_> {
    fn fault(&self) -> Fault {
        Fault { address: self.address, access: self.access, user: self.user }
    }
}

impl Touch for Resolving<'_> {
    type Output = FaultOutcome;

    fn attempt(&mut self, spare: &mut Option<Frame>) -> Attempt {
        if core::mem::replace(&mut self.again, true)
            && spare.is_none()
            && self.space.attempt_at_once(self.fault())
        {
            return Attempt::Done;
        }
        if !self.small && self.space.wants_large_page(self.fault()) {
            return Attempt::NeedsLarge;
        }
        self.small = true;
        self.space.attempt(self.fault(), spare)
    }

    fn attempt_large(&mut self, run: Option<FrameRun>) -> bool {
        self.small = true;
        run.is_some_and(|run| self.space.enter_large(self.fault(), run))
    }

    fn end(&mut self, result: Result<Waited, Denial>) -> FaultOutcome {
        let counters = &self.space.memory.counters;
        let (counter, outcome) = match result {
            Ok(true) => (&counters.major_faults, FaultOutcome::Resolved),
            Ok(false) => (&counters.minor_faults, FaultOutcome::Resolved),
            Err(why) => (&counters.denied, FaultOutcome::Denied(why)),
        };
        Counters::count(counter);
        outcome
    }
}

/// Shows the page of a fault that is answered at once: the mapping is held, so it is what it was.
struct AtOnce<'a> {
    space: &'a AddressSpace,
    within: Within<'a>,
    page: VirtAddr,
    /// What the mapping allows, as bits of a page table's entry.
    rights: u64,
}

impl Commit for AtOnce<'_> {
    #[inline(always)]
    fn commit(self, offer: Offer, spare: &mut Option<Frame>) -> Attempt {
        let mut tables = self.space.table.tables.lock_within(self.within);
        self.space.show(&mut tables, self.page, self.rights, offer, spare)
    }
}

impl AddressSpace {
    /// Makes the touched page accessible, or says why not: peek, touch, commit.
    ///
    /// A fault that somebody else has resolved already is resolved. Called by whoever runs the thread; may
    /// wait for a load and for memory.
    ///
    /// # Cancellation
    /// Dropping the future leaves the page as it is: a load that it started goes on, and the page will be
    /// there for the next.
    pub fn resolve(&self, fault: Fault) -> impl Future<Output = FaultOutcome> + Send + use<'_> {
        let Fault { address, access, user } = fault;
        settle(
            self.memory,
            Resolving { space: self, address, access, user, small: access != Access::Write, again: false },
        )
    }

    /// Makes the touched page accessible if nothing has to be waited for. False otherwise, and where the access is to be
    /// denied: then [`resolve`](Self::resolve) says what becomes of it.
    ///
    /// Called where the trap arrives, with interrupts off.
    #[must_use]
    #[inline]
    pub fn resolve_at_once(&self, fault: Fault, within: Within<'_>) -> bool {
        let done = self.show_at_once(fault, &self.mappings.lock_within(within), within);
        if done {
            Counters::count(&self.memory.counters.minor_faults);
        }
        done
    }

    /// The same where a task tries again.
    #[inline(never)]
    fn attempt_at_once(&self, fault: Fault) -> bool {
        let mappings = self.mappings.lock();
        self.show_at_once(fault, &mappings, SpinGuard::within(&mappings))
    }

    /// The mappings are held to the end, so that the mapping stays what it is: there is nothing to note, and nothing to
    /// compare.
    #[inline(always)]
    fn show_at_once(&self, fault: Fault, mappings: &Mappings, within: Within<'_>) -> bool {
        let address = VirtAddr::new(fault.address);
        let Some(address) = address.filter(|address| !fault.user || !address.is_upper_half()) else {
            return false;
        };
        let mapping = mapped(mappings, address);
        let Some(mapping) = mapping.filter(|mapping| check_rights(mapping, fault).is_ok()) else {
            return false;
        };
        let has_room = || self.table.tables.lock_within(within).has_room_for_large(address.page_start());
        if fault.access == Access::Write && self.may_be_large(mapping, has_room) {
            return false;
        }
        let (page, rights) = (address.page_start(), mapping.rights);
        let commit = AtOnce { space: self, within, page, rights };
        let (index, write) = (mapping.page_at(address), fault.access == Access::Write);
        matches!(mapping.shows.touch_at_once(index, write, within, commit), Attempt::Done)
    }

    /// One try to resolve a fault.
    pub(super) fn attempt(&self, fault: Fault, spare: &mut Option<Frame>) -> Attempt {
        match self.peek(fault) {
            Ok(view) => {
                let attempt = self.touch_and_commit(&view, fault.access, spare);
                if matches!(attempt, Attempt::Done) {
                    self.show_neighbours(&view);
                }
                attempt
            }
            Err(why) => Attempt::denied(why, spare),
        }
    }

    /// Shows the pages beside the one that was touched, those that are there: of the 16 pages that it is one of, so
    /// they have one table. And lets the object read on.
    fn show_neighbours(&self, view: &View) {
        if !view.shows.has_neighbours() {
            return;
        }
        let place = (view.page.as_u64() / PAGE_BYTES) % NEIGHBOURS;
        let start = view.index.saturating_sub(place).max(view.pages.start);
        let end = (view.index + NEIGHBOURS - place).min(view.pages.end);
        let around = Around {
            pages: start..end,
            start: VirtAddr::truncated(view.page.as_u64() - (view.index - start) * PAGE_BYTES),
            protection: view.protection,
            generation: view.generation,
            without: 0,
        };
        // Where reading is not allowed, each page is hidden from it until it is used otherwise.
        if view.protection.read {
            view.shows.show_around(&around, &self.table);
        }
        if let Some((object, index)) = view.shows.page_below(view.index) {
            object.read_on(index, view.advice);
        }
    }

    /// The rest of a try, which believes the peek only as far as the generation number confirms it.
    pub(super) fn touch_and_commit(&self, view: &View, access: Access, spare: &mut Option<Frame>) -> Attempt {
        view.shows.touch(view.index, access == Access::Write, view.advice, spare, |offer, spare| {
            self.commit(view, offer, spare)
        })
    }

    /// Shows a page, if the mapping is still what it was.
    #[inline]
    fn commit(&self, view: &View, offer: Offer, spare: &mut Option<Frame>) -> Attempt {
        let mut tables = self.table.tables.lock();
        if self.table.generation() != view.generation {
            return Attempt::Again;
        }
        self.show(&mut tables, view.page, rights(view.protection), offer, spare)
    }

    /// Shows a page that is offered, with these rights as far as the offer goes.
    #[inline(always)]
    fn show(
        &self,
        tables: &mut PageTable,
        page: VirtAddr,
        rights: u64,
        offer: Offer,
        spare: &mut Option<Frame>,
    ) -> Attempt {
        let rights = if offer.writable { rights } else { rights & !WRITABLE };
        if !self.memory.is_recorded() && tables.map_if_open(page, offer.instead_of, offer.frame, rights) {
            return Attempt::Done;
        }
        self.show_slowly(tables, page, rights, offer, spare)
    }

    /// The same, where it takes tables or is told.
    #[cold]
    #[inline(never)]
    fn show_slowly(
        &self,
        tables: &mut PageTable,
        page: VirtAddr,
        rights: u64,
        offer: Offer,
        spare: &mut Option<Frame>,
    ) -> Attempt {
        let Offer { frame, instead_of, .. } = offer;
        if self.memory.is_recorded() {
            self.memory.tell_map(self.table.root(), page, frame, rights & WRITABLE != 0);
            if tables.map_if_open(page, instead_of, frame, rights) {
                return Attempt::Done;
            }
        }
        match tables.map_slowly(page, instead_of, frame, rights, spare) {
            Ok(()) => Attempt::Done,
            Err(_) => Attempt::needs_table(self.memory),
        }
    }

    /// Looks which page of which object a fault is about, and whether the access is allowed. A stack that is touched
    /// below its lowest page grows.
    #[inline]
    pub(super) fn peek(&self, fault: Fault) -> Result<View, Denial> {
        let address = VirtAddr::new(fault.address).ok_or(Denial::NoMapping)?;
        if fault.user && address.is_upper_half() {
            return Err(Denial::UserTouchesKernel);
        }
        let mut mappings = self.mappings.lock();
        let mut mapping = mapped(&mappings, address);
        if mapping.is_none() {
            self.grow_stack(&mut mappings, address, fault)?;
            mapping = mapped(&mappings, address);
        }
        let mapping = mapping.ok_or(Denial::NoMapping)?;
        check_rights(mapping, fault)?;
        let page = address.page_start();
        Ok(View {
            shows: mapping.shows.clone(),
            index: mapping.page_at(address),
            page,
            pages: mapping.first..mapping.first + mapping.pages,
            protection: mapping.protection,
            advice: mapping.advice,
            generation: self.table.generation(),
        })
    }
}

/// The mapping at an address, unless it is on its way out.
#[inline]
fn mapped(mappings: &Mappings, address: VirtAddr) -> Option<&Mapping> {
    mappings.at(address).filter(|mapping| mapping.going.is_none())
}

/// Whether a mapping allows what a fault was about.
pub(super) fn check_rights(mapping: &Mapping, fault: Fault) -> Result<(), Denial> {
    if fault.user && !mapping.protection.user {
        return Err(Denial::UserTouchesKernel);
    }
    if !mapping.protection.allows(fault.access) {
        return Err(Denial::Protection(fault.access));
    }
    Ok(())
}
