//! Which pages are given back: a policy, asked about one page at a time, with what reclaim has seen of it.
//!
//! Of each kind of page there are three lists, one for each [`Age`], in the order in which reclaim last looked at the
//! pages, or in which they came. The policy says on which list reclaim looks next, and what becomes of the page that it
//! finds there. Which list a page is on and whether it was used is noted for it, so a policy needs no memory of
//! its own. A page is new when it has come to memory, and when it has changed its kind.

/// How a page has done so far: which list it is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Age {
    /// No policy has given it another age yet.
    #[default]
    New,
    /// For a policy to say what it means; here: it was looked at.
    Old,
    /// For a policy to say what it means; here: it belongs to a working set.
    Young,
}

/// What it takes to give a page back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageKind {
    /// Nothing: its pager can load it again.
    Clean,
    /// A store by its pager.
    Dirty,
    /// A place in swap.
    Anonymous,
}

/// What reclaim sees of a page when it looks at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Observation {
    /// What it takes to give it back.
    pub kind: PageKind,
    /// What earlier looks made of it.
    pub age: Age,
    /// Whether anybody has used it since the last look, or since it came: by a program's access, in any space that
    /// shows it, or through its object.
    pub used: bool,
}

/// How many pages of one kind there are to look at, by age.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ages {
    /// New ones.
    pub new: usize,
    /// Old ones.
    pub old: usize,
    /// Young ones.
    pub young: usize,
}

/// What becomes of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It stays, with this age, and is the last that is looked at of those.
    Keep(Age),
    /// It is given back, unless somebody touches it before all CPUs have forgotten it.
    Evict,
}

/// A way to choose the pages that go. Given to [`Memory::set_policy`](crate::Memory::set_policy).
///
/// Its functions are called with spin locks held: they neither wait nor call back into `mm`. Any answer is safe. A
/// policy that keeps everything makes waits for memory end with [`OutOfMemory`](crate::OutOfMemory).
pub trait ReclaimPolicy: Sync {
    /// For whoever prints it.
    fn name(&self) -> &'static str;

    /// Of which age the next page is that is looked at; where there is none, it is of the first age that there is.
    fn look_next(&self, _ages: Ages) -> Age {
        Age::New
    }

    /// After how many looks a page goes that nobody has used since the first of them, at most.
    fn looks(&self) -> usize {
        2
    }

    /// What becomes of a page.
    fn judge(&self, page: Observation) -> Verdict;
}

/// A page that was used since the last look stays until the next; the others go. All are new to it.
///
/// A page that is used once is kept as long as one that is used all the time, so whoever reads much once drives
/// out what others use.
#[derive(Clone, Copy, Debug, Default)]
pub struct SecondChance;

impl ReclaimPolicy for SecondChance {
    fn name(&self) -> &'static str {
        "second chance"
    }

    fn judge(&self, page: Observation) -> Verdict {
        if page.used { Verdict::Keep(Age::New) } else { Verdict::Evict }
    }
}

/// A page belongs to a working set only when it was used again after its first look, and reclaim does not look at those
/// while there are enough others. So what is read once goes before it, however much that is.
///
/// The first look comes when half of the others came later, so there is as much time again for the second use.
///
/// | age | used since the last look | not used |
/// | --- | --- | --- |
/// | new | old | goes |
/// | old | young | goes |
/// | young | young | old |
#[derive(Clone, Copy, Debug, Default)]
pub struct SecondUse;

impl SecondUse {
    /// Young pages are looked at when there are more than so many for each other one: working sets may take two
    /// thirds of memory.
    const YOUNG_FOR_OTHERS: usize = 2;
}

impl ReclaimPolicy for SecondUse {
    fn name(&self) -> &'static str {
        "second use"
    }

    fn look_next(&self, ages: Ages) -> Age {
        if ages.young / Self::YOUNG_FOR_OTHERS > ages.new + ages.old {
            Age::Young
        } else if ages.new > ages.old {
            Age::New
        } else {
            Age::Old
        }
    }

    /// Once where it becomes old, once more, and once before where it is young.
    fn looks(&self) -> usize {
        3
    }

    fn judge(&self, page: Observation) -> Verdict {
        match (page.age, page.used) {
            (Age::New, true) | (Age::Young, false) => Verdict::Keep(Age::Old),
            (Age::Old | Age::Young, true) => Verdict::Keep(Age::Young),
            (Age::New | Age::Old, false) => Verdict::Evict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_second_use_young_pages_are_looked_at_when_they_are_more_than_two_thirds() {
        let next = |new, old, young| SecondUse.look_next(Ages { new, old, young });
        assert_eq!([next(10, 5, 32), next(10, 10, 0), next(3, 3, 12)], [Age::Young, Age::Old, Age::Old]);
        assert_eq!([next(10, 5, 30), next(11, 10, 0)], [Age::New, Age::New]);
    }

    #[test]
    fn by_second_use_a_page_goes_after_as_many_looks_as_are_said() {
        for first in [Age::New, Age::Old, Age::Young] {
            let (mut age, mut used) = (first, true);
            let goes = (1..).find(|_| {
                let page =
                    Observation { kind: PageKind::Clean, age, used: core::mem::replace(&mut used, false) };
                match SecondUse.judge(page) {
                    Verdict::Keep(from_now_on) => age = from_now_on,
                    Verdict::Evict => return true,
                }
                false
            });
            assert!(goes.is_some_and(|looks| looks <= SecondUse.looks()), "{first:?}: {goes:?}");
        }
    }
}
