//! Wakes at any instruction: a signal handler stands for the interrupt handler.
#![cfg(all(not(loom), target_os = "linux"))]
#![allow(unsafe_code, reason = "signals are sent and handled through libc")]

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use executor::host::block_on;
use executor::sync::{Mutex, Signal};
use executor::{TaskRef, WaitReason, spawn, yield_now};

const INTERRUPTS: usize = 1_000;

static EVENT: Signal = Signal::new(WaitReason::Keyboard);
static SENT: AtomicUsize = AtomicUsize::new(0);
static SEEN: AtomicUsize = AtomicUsize::new(0);
static DONE: AtomicBool = AtomicBool::new(false);
/// Another task, which the handler wakes in vain, after it cloned a reference.
static TASK: AtomicPtr<TaskRef> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn handler(_: libc::c_int) {
    // SAFETY: the reference is leaked before the first signal.
    if let Some(task) = unsafe { TASK.load(Ordering::Acquire).as_ref() } {
        let reference = task.clone();
        reference.wake();
        drop(reference);
    }
    drop(executor::current_task());
    std::hint::black_box(executor::has_work());
    SENT.fetch_add(1, Ordering::Release);
    EVENT.signal();
}

/// Work of every kind, so that the handler finds the executor in the middle of something.
async fn churn(shared: Arc<Mutex<usize>>) {
    while !DONE.load(Ordering::Relaxed) {
        let handle = spawn(async {
            yield_now().await;
            1
        });
        *shared.lock().await += handle.await.unwrap();
        let aborted = spawn(std::future::pending::<()>());
        aborted.abort();
        assert!(aborted.await.is_err());
        executor::time::sleep(Duration::from_nanos(200)).await;
    }
}

#[test]
fn a_wake_from_a_handler_at_any_instruction_is_not_lost() {
    let (ready, started) = mpsc::channel();
    let cpu = std::thread::spawn(move || {
        let waits = spawn(async {
            while !DONE.load(Ordering::Relaxed) {
                EVENT.wait().await;
                SEEN.store(SENT.load(Ordering::Acquire), Ordering::Release);
            }
        });
        let idle = spawn(std::future::pending::<()>());
        TASK.store(Box::leak(Box::new(idle.task())), Ordering::Release);
        let shared = Arc::new(Mutex::new(0));
        let workers: Vec<_> = (0..4).map(|_| spawn(churn(Arc::clone(&shared)))).collect();
        // SAFETY: the handler does only what an interrupt handler may do.
        unsafe { libc::signal(libc::SIGUSR1, handler as *const () as libc::sighandler_t) };
        // SAFETY: always allowed.
        ready.send(unsafe { libc::pthread_self() }).unwrap();
        block_on(async {
            waits.await.unwrap();
            idle.abort();
            for worker in workers {
                worker.await.unwrap();
            }
        });
        assert!(*shared.try_lock().unwrap() > 0);
    });
    let target = started.recv().unwrap();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut lost = false;
    for i in 1..=INTERRUPTS {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        for _ in 0..seed % 400 {
            std::hint::spin_loop();
        }
        // SAFETY: the thread runs until it is joined below.
        unsafe { libc::pthread_kill(target, libc::SIGUSR1) };
        let sent = Instant::now();
        while SEEN.load(Ordering::Acquire) < i {
            lost = sent.elapsed() > Duration::from_secs(10);
            if lost {
                break;
            }
            std::thread::yield_now();
        }
        if lost {
            break;
        }
    }
    DONE.store(true, Ordering::Relaxed);
    // SAFETY: as above.
    unsafe { libc::pthread_kill(target, libc::SIGUSR1) };
    assert!(!lost, "a wake was lost after {} of them", SEEN.load(Ordering::Relaxed));
    cpu.join().unwrap();
}
