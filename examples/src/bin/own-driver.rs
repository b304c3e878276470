//! A driver of one's own, for a device that the kernel does not use: virtio entropy. Its interrupt wakes whoever waits for
//! random bytes; nobody looks at the device in between.
// qemu: -device virtio-rng-pci
#![no_std]
#![no_main]

extern crate alloc;

use alloc::{boxed::Box, sync::Arc};

use drivers::dma::DmaBuffer;
use drivers::pci;
use drivers::virtio::{DeviceType, Filler, ProbeError};
use kernel::{interrupt, println};

struct Entropy(Arc<Filler>);

impl Entropy {
    /// The first such device that works.
    fn find() -> Option<Self> {
        let target = interrupt::allocate()?;
        for function in pci::enumerate() {
            match Filler::probe(&function, DeviceType::EntropySource, target) {
                Ok(device) => {
                    let handler = device.clone();
                    interrupt::register(target.vector, Box::leak(Box::new(move || handler.interrupt())));
                    return Some(Self(device));
                }
                Err(ProbeError::OtherType) => {}
                Err(error) => println!("{function}: {error}"),
            }
        }
        None
    }

    /// Fills the bytes, however few the device gives at a time. `None` when it is gone or gives none, or memory is out.
    async fn random<const N: usize>(&self) -> Option<[u8; N]> {
        let (mut bytes, mut filled) = ([0; N], 0);
        while filled < N {
            let (buffer, given) = self.0.fill(DmaBuffer::new(N - filled)?).await.ok()?;
            if given == 0 {
                return None;
            }
            bytes[filled..filled + given].copy_from_slice(&buffer.as_bytes()[..given]);
            filled += given;
        }
        Some(bytes)
    }
}

kernel::entry!(main);

async fn main() {
    let Some(entropy) = Entropy::find() else { kernel::exit(1) };
    let (one, other) = futures_util::join!(entropy.random::<16>(), entropy.random::<16>());
    let number = |bytes: Option<[u8; 16]>| bytes.map_or(0, u128::from_le_bytes);
    println!("random: {:#034x} {:#034x}", number(one), number(other));
    kernel::exit(0)
}
