//! Copying between an address space and the kernel's own memory, for system calls: what a program hands
//! over is an allegation, and each page of it is checked like a fault.

use core::fmt;

use super::AddressSpace;
use super::fault::View;
use crate::frame::address_of;
use crate::settle::{Attempt, plain, settle};
use crate::vm_object::piece;
use crate::{Access, Denial, Fault, Frame};

/// Why a string could not be copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StrError {
    /// It has no end within the length that was given.
    TooLong,
    /// A byte of it could not be read.
    Denied {
        /// The first such byte.
        address: u64,
        /// Why not.
        why: Denial,
    },
}

impl fmt::Display for StrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StrError::TooLong => f.write_str("the string is too long"),
            StrError::Denied { address, why } => {
                write!(f, "the string cannot be read at {address:#x}: {why}")
            }
        }
    }
}

impl AddressSpace {
    /// Copies bytes at `from` in this space into `to`, waiting for pages that are not there. Any number may
    /// stand in `from`; in a lower-half space only what ring 3 may read is copied.
    ///
    /// # Errors
    /// Why the first page that could not be read was denied; the bytes before it are in `to`.
    ///
    /// # Cancellation
    /// Dropping the future leaves `to` partly filled.
    pub async fn copy_in(&self, from: u64, to: &mut [u8]) -> Result<(), Denial> {
        let mut done = 0;
        while done < to.len() {
            let address = from.checked_add(done as u64).ok_or(Denial::NoMapping)?;
            let (_, within, count) = piece(address, to.len() - done);
            let part = &mut to[done..done + count];
            let fault = Fault { address, access: Access::Read, user: self.is_user() };
            let touch = plain(|spare| {
                self.with_page(fault, spare, |frame| {
                    self.memory.frames().window().read(address_of(frame), within, part);
                })
            });
            settle(self.memory, touch).await?;
            done += count;
        }
        Ok(())
    }

    /// Copies a string that ends with a NUL from `from` in this space into `to`, the NUL included, and says how many bytes
    /// come before that. At most `to` is filled, and no byte after the NUL's page or beyond the length of `to` is touched:
    /// a string that ends just before a page that cannot be read is fine. Any number may stand in `from`; in a lower-half
    /// space only what ring 3 may read is copied.
    ///
    /// # Errors
    /// [`StrError::TooLong`] when there is no NUL in as many bytes as `to` has; [`StrError::Denied`] for the first byte
    /// that could not be read. What comes before is in `to`.
    ///
    /// # Cancellation
    /// Dropping the future leaves `to` partly filled.
    pub async fn copy_str(&self, from: u64, to: &mut [u8]) -> Result<usize, StrError> {
        let mut done = 0;
        while done < to.len() {
            // After the last address there is comes no other.
            let past_the_end = StrError::Denied { address: u64::MAX, why: Denial::NoMapping };
            let address = from.checked_add(done as u64).ok_or(past_the_end)?;
            let (_, _, count) = piece(address, to.len() - done);
            let part = &mut to[done..done + count];
            self.copy_in(address, part).await.map_err(|why| StrError::Denied { address, why })?;
            if let Some(nul) = part.iter().position(|&byte| byte == 0) {
                return Ok(done + nul);
            }
            done += count;
        }
        Err(StrError::TooLong)
    }

    /// Copies `from` to the bytes at `to` in this space, waiting for pages that are not there. Any number
    /// may stand in `to`; in a lower-half space only where ring 3 may write is written.
    ///
    /// # Errors
    /// Why the first page that could not be written was denied; the pages before it are written.
    ///
    /// # Cancellation
    /// Dropping the future leaves a part written.
    pub async fn copy_out(&self, to: u64, from: &[u8]) -> Result<(), Denial> {
        let mut done = 0;
        while done < from.len() {
            let address = to.checked_add(done as u64).ok_or(Denial::NoMapping)?;
            let (_, within, count) = piece(address, from.len() - done);
            let part = &from[done..done + count];
            let fault = Fault { address, access: Access::Write, user: self.is_user() };
            let touch = plain(|spare| {
                self.with_page(fault, spare, |frame| {
                    self.memory.frames().window().write(address_of(frame), within, part);
                })
            });
            settle(self.memory, touch).await?;
            done += count;
        }
        Ok(())
    }

    /// One try to use a page as a fault would.
    fn with_page(&self, fault: Fault, spare: &mut Option<Frame>, used: impl FnOnce(u64)) -> Attempt {
        match self.peek(fault) {
            Ok(view) => self.touch_and_use(&view, fault.access, spare, used),
            Err(why) => Attempt::denied(why, spare),
        }
    }

    /// The rest of a try. The page stays where it is while `used` runs, because the object's lock is held;
    /// and the mapping still shows it, or whoever took it away has yet to clear the tables.
    pub(super) fn touch_and_use(
        &self,
        view: &View,
        access: Access,
        spare: &mut Option<Frame>,
        used: impl FnOnce(u64),
    ) -> Attempt {
        view.shows.touch(view.index, access == Access::Write, view.advice, spare, |offer, _| {
            if self.table.generation() != view.generation {
                return Attempt::Again;
            }
            if let Some(old) = offer.instead_of {
                self.table.tables.lock().exchange(view.page, old, offer.frame);
            }
            used(offer.frame);
            Attempt::Done
        })
    }

    pub(super) fn is_user(&self) -> bool {
        !self.range.start.is_upper_half()
    }
}
