//! The screen: the console's text in the boot loader's framebuffer, where there is one.
//!
//! A task of its own reads what the serial console has sent from a mirror and paints it, some characters a poll, at most 50
//! times a second: whoever prints does not wait for it, and no interrupt handler paints. Where more is printed than can be
//! shown, the oldest of it is left out, and counted.
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | the task, a key that scrolls | a spin lock, for the time of a few hundred bytes or some characters |
//! | the task, a panic | all others stand still by then: the panic takes the lock, or leaves the screen as it is |
//! | sender, task | [`drivers::mirror`] |

use core::{fmt::Write, time::Duration};

use bootloader_api::{
    BootInfo,
    info::{FrameBuffer, PixelFormat},
};
use conquer_once::spin::OnceCell;
use drivers::{
    mirror::{Mirror, MirrorPlace},
    screen::{Canvas, Layout, Terminal},
};
use executor::{
    Builder,
    lock::SpinLock,
    time::{self, Instant},
};
use futures_util::{FutureExt, select_biased};

/// What the serial console has sent.
pub(crate) static MIRROR: Mirror = Mirror::new();

/// What the port of a command of `--exec` has sent.
pub(crate) static OUTPUT_MIRROR: Mirror = Mirror::new();

static SCREEN: OnceCell<SpinLock<Screen>> = OnceCell::uninit();

/// Lines that are kept when they have left the screen.
const KEPT: usize = 500;
/// Bytes that are read before others get a turn.
const BATCH: usize = 512;
/// Characters that are painted before others get a turn.
const PAINTED: usize = 48;
/// The shortest time from one picture to the next.
const FRAME: Duration = Duration::from_millis(20);

struct Screen {
    terminal: Terminal,
    canvas: Canvas<'static>,
    place: MirrorPlace,
    output: MirrorPlace,
}

/// Takes over the framebuffer and begins to show what the console prints, from its first line on. Once at boot, when
/// there is a heap.
pub(crate) fn init(info: &mut BootInfo) {
    let Some(framebuffer) = info.framebuffer.take() else { return };
    let layout = layout(&framebuffer);
    let Some(canvas) = Canvas::new(framebuffer.into_buffer(), layout) else {
        log::warn!("the framebuffer cannot be used: {layout:?}");
        return;
    };
    let Some(terminal) = Terminal::try_new(canvas.columns(), canvas.rows(), KEPT) else {
        log::warn!("there is no memory for the screen");
        return;
    };
    SCREEN.init_once(|| {
        SpinLock::new(
            "screen",
            Screen { terminal, canvas, place: MirrorPlace::default(), output: MirrorPlace::default() },
        )
    });
    drop(Builder::new().name("screen").spawn(show()));
}

fn layout(framebuffer: &FrameBuffer) -> Layout {
    let info = framebuffer.info();
    let colours = match info.pixel_format {
        PixelFormat::Rgb => Some([0, 8, 16]),
        PixelFormat::Bgr => Some([16, 8, 0]),
        PixelFormat::Unknown { red_position, green_position, blue_position } => {
            Some([red_position, green_position, blue_position])
        }
        _ => None,
    };
    Layout {
        width: info.width,
        height: info.height,
        stride: info.stride * info.bytes_per_pixel,
        bytes_per_pixel: info.bytes_per_pixel,
        colours,
    }
}

/// The task. It has no end.
async fn show() {
    let Some(screen) = SCREEN.get() else { return };
    let rows = screen.lock().canvas.rows();
    for row in 0..rows {
        screen.lock().canvas.clear(row);
        executor::yield_now().await;
    }
    loop {
        let next = Instant::now() + FRAME;
        while screen.lock().read() {
            executor::yield_now().await;
        }
        while screen.lock().paint() {
            executor::yield_now().await;
        }
        time::sleep_until(next).await;
        select_biased! {
            () = MIRROR.more().fuse() => {}
            () = OUTPUT_MIRROR.more().fuse() => {}
        }
    }
}

impl Screen {
    /// Reads some of what was printed. Returns whether there may be more.
    fn read(&mut self) -> bool {
        let mut bytes = [0; BATCH];
        let (count, missed) = self.place.read(&MIRROR, &mut bytes);
        self.feed(&bytes[..count], missed);
        let (of_output, missed) = self.output.read(&OUTPUT_MIRROR, &mut bytes);
        self.feed(&[], missed);
        // It is for a file: lines end without a carriage return.
        for line in bytes[..of_output].split_inclusive(|&byte| byte == b'\n') {
            self.feed(line, 0);
            if line.ends_with(b"\n") {
                self.feed(b"\r", 0);
            }
        }
        count + of_output > 0
    }

    fn feed(&mut self, bytes: &[u8], missed: usize) {
        if missed > 0 {
            let _ = write!(self.terminal, "\r\n\x1b[7m[{missed} bytes are not shown]\x1b[m\r\n");
        }
        self.terminal.feed(bytes);
    }

    /// Shows what was printed until now: others who go on printing do not hold this up.
    fn show_all(&mut self) {
        self.terminal.look_at_end();
        for _ in 0..Mirror::BYTES / BATCH {
            if !self.read() {
                break;
            }
        }
        while self.paint() {}
    }

    /// Paints some characters. Returns whether there may be more.
    fn paint(&mut self) -> bool {
        let Self { terminal, canvas, .. } = self;
        terminal.changes(PAINTED, |row, column, cell| canvas.paint(row, column, cell))
    }
}

/// Moves the view by so many pages, upwards if positive. From tasks and threads.
pub(crate) fn look_back(pages: isize) {
    if let Some(screen) = SCREEN.get() {
        screen.lock().terminal.look_back(pages);
        MIRROR.signal();
    }
}

/// Moves the view to what is printed now. From tasks and threads.
pub(crate) fn look_at_end() {
    if let Some(screen) = SCREEN.get()
        && screen.lock().terminal.look_at_end()
    {
        MIRROR.signal();
    }
}

/// Shows all that was printed, at once, for the end of a run. From tasks and threads.
pub(crate) fn show_all() {
    if let Some(screen) = SCREEN.get() {
        screen.lock().show_all();
    }
}

/// The same for a panic, when all other CPUs stand still: one of them may have stopped while it painted, and then the
/// screen stays as it is.
pub(crate) fn show_if_possible() {
    if let Some(mut screen) = SCREEN.get().and_then(SpinLock::try_lock) {
        screen.show_all();
    }
}
