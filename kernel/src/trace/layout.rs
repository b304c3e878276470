//! What kernel and runner agree on: the words of the rings and of their records. The runner reads this file, too.
//!
//! The rings lie in one piece of memory: a header of words, then the rings, one a CPU. Whoever makes the memory fills in
//! [`MAGIC`], [`CPUS`] and [`RECORDS`]. A ring's CPU alone writes it: the words of a record first, then the count of
//! records written so far. Nobody waits for a reader: the oldest records are overwritten. So who reads looks at the
//! count again afterwards, and leaves out what may have been overwritten meanwhile.

/// Says that the memory is meant for this.
pub const MAGIC: u64 = 0x3165_6361_7274_6c66;

/// Words of the header: what they hold.
pub const IS: usize = 0;
/// How many rings there are.
pub const CPUS: usize = 1;
/// How many records a ring has room for.
pub const RECORDS: usize = 2;
/// The number of the next record, of all rings.
pub const NEXT: usize = 3;
/// How many records were written to the ring of CPU 0, and so on.
pub const WRITTEN: usize = 8;
/// Words of the header.
pub const HEADER: usize = 128;
/// Words of a record.
pub const WORDS: usize = 8;

/// The rings that the header has room for.
pub const MOST_CPUS: usize = HEADER - WRITTEN;

/// One record: its words are its number, its time in ns since boot, what it is, and what that says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Records are numbered in the order in which they were begun. A number that is missing is a record that was lost.
    pub number: u64,
    /// When, in ns since boot.
    pub time: u64,
    /// What.
    pub kind: Kind,
    /// On which CPU.
    pub cpu: u8,
    /// See [`Kind`].
    pub detail: u8,
    /// The memory that a page belongs to.
    pub memory: u16,
    /// See [`Kind`].
    pub words: [u64; 5],
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What happened. Words are given in their order; "thread" and "task" are their numbers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name),* }

        const KINDS: &[Kind] = &[$(Kind::$name),*];
    };
}

kinds! {
    /// A name. Detail: what has it, see [`Named`]; words: its number, and 32 bytes of the name.
    Name,
    /// A thread is entered, and goes on. Thread.
    Resume,
    /// It has left. Thread.
    Leave,
    /// A thread trapped with a page fault. Detail: 1 write, 2 execution, 4 ring 3; thread, address.
    Trap,
    /// A fault was resolved without leaving the thread. As above; when it began.
    AtOnce,
    /// The thread is parked. Thread.
    Park,
    /// Its future is polled again. Thread.
    Wake,
    /// Its fault is resolved. Thread.
    Map,
    /// It has ended, perhaps by its fault. Thread.
    End,
    /// Pages were requested from a device. Detail: 1 to store them; device, first page, how many.
    Request,
    /// The device completed that. Detail: 0 well, 1 with an error; device, first page.
    Complete,
    /// A device interrupted. Detail: the vector.
    Interrupt,
    /// A task is polled from here on. Task.
    PollBegin,
    /// Until here. Detail: 1 it is over; task.
    PollEnd,
    /// A task waits from here on. Task.
    Waits,
    /// It is woken. Task.
    Woken,
    /// A page's state has changed. Detail: the event; object, page, word before, word after.
    State,
    /// An object has ended. Object.
    Ended,
    /// A fault has entered a page in a table. Detail: 1 writable; root, address, frame.
    Enter,
    /// All CPUs are waited for. The wait's number.
    ShootdownBegin,
    /// That is over, also for waits with smaller numbers.
    ShootdownEnd,
    /// A clean page was given back. Object, page.
    Evict,
    /// Pages were handed to an object's pager. Detail: 1 to store them; object, first page, how many.
    Asked,
    /// The pager is done with one of them. Detail: 1 stored, 2 with an error; object, page.
    Answered,
}

/// What a name is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Named {
    /// A CPU that has come up.
    Cpu,
    /// A thread.
    Thread,
    /// A task.
    Task,
    /// A device.
    Device,
    /// A state of pages: the lowest four bits of their words.
    State,
    /// An event that changes the state of pages.
    Event,
    /// An object's pager. Its number is the object's; the record says of which memory.
    Pager,
}

impl Record {
    /// As it stands in a ring.
    pub fn to_words(self) -> [u64; WORDS] {
        let [a, b, c, d, e] = self.words;
        let kind = self.kind as u64
            | u64::from(self.cpu) << 8
            | u64::from(self.detail) << 16
            | u64::from(self.memory) << 24;
        [self.number, self.time, kind, a, b, c, d, e]
    }

    /// The other way round; `None` if that is no record.
    pub fn from_words(words: [u64; WORDS]) -> Option<Self> {
        let [number, time, kind, a, b, c, d, e] = words;
        Some(Self {
            number,
            time,
            kind: *KINDS.get(usize::from(kind as u8))?,
            cpu: (kind >> 8) as u8,
            detail: (kind >> 16) as u8,
            memory: (kind >> 24) as u16,
            words: [a, b, c, d, e],
        })
    }
}
