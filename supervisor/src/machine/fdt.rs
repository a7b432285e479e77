//! The device tree (Devicetree Specification 0.4; Linux bindings of the devices named).

use quasar_abi::machine::{
    ACLINT, IRQ_RTC, IRQ_UART, IRQ_VIRTIO, PLIC, PLIC_SOURCES, RAM_BASE, RTC, Region, SYSCON, TIMEBASE_HZ,
    UART, VIRTIO, VIRTIO_STRIDE,
};
use vm_fdt::{Error, FdtWriter, FdtWriterNode};

/// Single-letter extensions, in the order of the ISA string.
const BASE_EXTENSIONS: [&str; 6] = ["i", "m", "a", "f", "d", "c"];
/// The others, in canonical order.
const EXTENSIONS: [&str; 12] = [
    "zicntr", "zicond", "zicsr", "zifencei", "zba", "zbb", "zbs", "sstc", "svadu", "svinval", "svnapot",
    "svpbmt",
];
/// Largest translation mode that the guest is told of. The harts have Sv57 too; four levels address more than
/// any guest has, and each level more costs every walk.
const MMU_TYPE: &str = "riscv,sv48";
/// Reference clock of the UART in Hz: 115200 baud is divisor 2.
const UART_CLOCK: u32 = 3_686_400;
/// Values that the syscon takes (SiFive test finisher).
const SYSCON_POWEROFF: u32 = 0x5555;
const SYSCON_REBOOT: u32 = 0x7777;

const PLIC_PHANDLE: u32 = 0x100;
const SYSCON_PHANDLE: u32 = 0x101;
const IRQ_M_SOFT: u32 = 3;
const IRQ_M_TIMER: u32 = 7;
const IRQ_S_EXT: u32 = 9;
const IRQ_M_EXT: u32 = 11;

/// What the tree tells beyond the fixed memory map.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// Harts.
    pub harts: u8,
    /// Bytes of RAM.
    pub memory: u64,
    /// virtio-mmio slots that hold a device, from slot 0 on.
    pub virtio: usize,
    /// Kernel command line.
    pub bootargs: String,
    /// First and last-plus-one address of the initial ramdisk.
    pub initrd: Option<(u64, u64)>,
    /// Seed of the guest's random generator; empty for none.
    pub rng_seed: Vec<u8>,
}

const fn intc_phandle(hart: u8) -> u32 {
    1 + hart as u32
}

/// Cells of `reg` for a region: two for the address, two for the size.
fn reg(tree: &mut FdtWriter, region: Region) -> Result<(), Error> {
    tree.property_array_u64("reg", &[region.base, region.len])
}

fn node(
    tree: &mut FdtWriter,
    name: &str,
    region: Region,
    compatible: &[&str],
) -> Result<FdtWriterNode, Error> {
    let node = tree.begin_node(&format!("{name}@{:x}", region.base))?;
    tree.property_string_list("compatible", compatible.iter().map(ToString::to_string).collect())?;
    reg(tree, region)?;
    Ok(node)
}

fn interrupt(tree: &mut FdtWriter, source: u32) -> Result<(), Error> {
    tree.property_u32("interrupt-parent", PLIC_PHANDLE)?;
    tree.property_u32("interrupts", source)
}

/// The ISA as a string, as older kernels and firmware read it.
fn isa_string() -> String {
    let base: String = BASE_EXTENSIONS.concat();
    format!("rv64{base}_{}", EXTENSIONS.join("_"))
}

fn cpus(tree: &mut FdtWriter, harts: u8) -> Result<(), Error> {
    let cpus = tree.begin_node("cpus")?;
    tree.property_u32("#address-cells", 1)?;
    tree.property_u32("#size-cells", 0)?;
    tree.property_u32("timebase-frequency", u32::try_from(TIMEBASE_HZ).unwrap_or(u32::MAX))?;
    let extensions: Vec<String> =
        BASE_EXTENSIONS.iter().chain(&EXTENSIONS).map(ToString::to_string).collect();
    for hart in 0..harts {
        let cpu = tree.begin_node(&format!("cpu@{hart}"))?;
        tree.property_string("device_type", "cpu")?;
        tree.property_u32("reg", hart.into())?;
        tree.property_string("status", "okay")?;
        tree.property_string("compatible", "riscv")?;
        tree.property_string("riscv,isa", &isa_string())?;
        tree.property_string("riscv,isa-base", "rv64i")?;
        tree.property_string_list("riscv,isa-extensions", extensions.clone())?;
        tree.property_string("mmu-type", MMU_TYPE)?;
        let intc = tree.begin_node("interrupt-controller")?;
        tree.property_string("compatible", "riscv,cpu-intc")?;
        tree.property_u32("#interrupt-cells", 1)?;
        tree.property_null("interrupt-controller")?;
        tree.property_phandle(intc_phandle(hart))?;
        tree.end_node(intc)?;
        tree.end_node(cpu)?;
    }
    tree.end_node(cpus)
}

/// `interrupts-extended` to two interrupts of each hart.
fn to_harts(tree: &mut FdtWriter, harts: u8, machine: u32, supervisor_or_timer: u32) -> Result<(), Error> {
    let cells: Vec<u32> = (0..harts)
        .flat_map(|hart| [intc_phandle(hart), machine, intc_phandle(hart), supervisor_or_timer])
        .collect();
    tree.property_array_u32("interrupts-extended", &cells)
}

fn chosen(tree: &mut FdtWriter, description: &Description) -> Result<(), Error> {
    let chosen = tree.begin_node("chosen")?;
    tree.property_string("bootargs", &description.bootargs)?;
    tree.property_string("stdout-path", &format!("/soc/serial@{:x}", UART.base))?;
    if let Some((start, end)) = description.initrd {
        tree.property_u64("linux,initrd-start", start)?;
        tree.property_u64("linux,initrd-end", end)?;
    }
    if !description.rng_seed.is_empty() {
        tree.property("rng-seed", &description.rng_seed)?;
    }
    tree.end_node(chosen)
}

fn power(tree: &mut FdtWriter, name: &str, value: u32) -> Result<(), Error> {
    let node = tree.begin_node(name)?;
    tree.property_string("compatible", &format!("syscon-{name}"))?;
    tree.property_u32("regmap", SYSCON_PHANDLE)?;
    tree.property_u32("offset", 0)?;
    tree.property_u32("value", value)?;
    tree.end_node(node)
}

fn soc(tree: &mut FdtWriter, description: &Description) -> Result<(), Error> {
    let soc = tree.begin_node("soc")?;
    tree.property_u32("#address-cells", 2)?;
    tree.property_u32("#size-cells", 2)?;
    tree.property_string("compatible", "simple-bus")?;
    tree.property_null("ranges")?;

    let syscon = node(tree, "test", SYSCON, &["sifive,test1", "sifive,test0", "syscon"])?;
    tree.property_phandle(SYSCON_PHANDLE)?;
    tree.end_node(syscon)?;

    let rtc = node(tree, "rtc", RTC, &["google,goldfish-rtc"])?;
    interrupt(tree, IRQ_RTC)?;
    tree.end_node(rtc)?;

    let uart = node(tree, "serial", UART, &["ns16550a"])?;
    tree.property_u32("clock-frequency", UART_CLOCK)?;
    interrupt(tree, IRQ_UART)?;
    tree.end_node(uart)?;

    for slot in 0..u32::try_from(description.virtio).unwrap_or(0) {
        let region = Region { base: VIRTIO.base + u64::from(slot) * VIRTIO_STRIDE, len: VIRTIO_STRIDE };
        let device = node(tree, "virtio_mmio", region, &["virtio,mmio"])?;
        interrupt(tree, IRQ_VIRTIO + slot)?;
        tree.end_node(device)?;
    }

    let plic = node(tree, "plic", PLIC, &["sifive,plic-1.0.0", "riscv,plic0"])?;
    tree.property_u32("riscv,ndev", PLIC_SOURCES)?;
    tree.property_u32("#interrupt-cells", 1)?;
    tree.property_u32("#address-cells", 0)?;
    tree.property_null("interrupt-controller")?;
    to_harts(tree, description.harts, IRQ_M_EXT, IRQ_S_EXT)?;
    tree.property_phandle(PLIC_PHANDLE)?;
    tree.end_node(plic)?;

    let clint = node(tree, "clint", ACLINT, &["sifive,clint0", "riscv,clint0"])?;
    to_harts(tree, description.harts, IRQ_M_SOFT, IRQ_M_TIMER)?;
    tree.end_node(clint)?;
    tree.end_node(soc)
}

/// The flattened tree.
///
/// # Errors
/// When a string holds a NUL byte.
pub fn build(description: &Description) -> Result<Vec<u8>, Error> {
    let mut tree = FdtWriter::new()?;
    let root = tree.begin_node("")?;
    tree.property_u32("#address-cells", 2)?;
    tree.property_u32("#size-cells", 2)?;
    tree.property_string("compatible", "riscv-virtio")?;
    tree.property_string("model", "quasar,virt")?;
    chosen(&mut tree, description)?;
    let memory = tree.begin_node(&format!("memory@{RAM_BASE:x}"))?;
    tree.property_string("device_type", "memory")?;
    reg(&mut tree, Region { base: RAM_BASE, len: description.memory })?;
    tree.end_node(memory)?;
    cpus(&mut tree, description.harts)?;
    power(&mut tree, "poweroff", SYSCON_POWEROFF)?;
    power(&mut tree, "reboot", SYSCON_REBOOT)?;
    soc(&mut tree, description)?;
    tree.end_node(root)?;
    tree.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every property as (path, name, value), read straight from the flattened structure (chapter 5).
    fn properties(blob: &[u8]) -> Vec<(String, String, Vec<u8>)> {
        let word = |at: usize| {
            usize::try_from(u32::from_be_bytes(*blob[at..].first_chunk().expect("word"))).expect("usize")
        };
        let string = |at: usize| {
            let bytes = blob[at..].split(|b| *b == 0).next().expect("string");
            String::from_utf8(bytes.to_vec()).expect("UTF-8")
        };
        assert_eq!(word(0), 0xd00d_feed);
        let (mut at, strings) = (word(8), word(12));
        let (mut path, mut out) = (vec![], vec![]);
        loop {
            let token = word(at);
            at += 4;
            match token {
                1 => {
                    path.push(string(at));
                    at = (at + path[path.len() - 1].len() + 1).next_multiple_of(4);
                }
                2 => drop(path.pop()),
                3 => {
                    let len = word(at);
                    let value = blob[at + 8..at + 8 + len].to_vec();
                    out.push((path.join("/"), string(strings + word(at + 4)), value));
                    at = (at + 8 + len).next_multiple_of(4);
                }
                9 => return out,
                other => panic!("token {other}"),
            }
        }
    }

    fn cells(value: &[u8]) -> Vec<u32> {
        value.as_chunks::<4>().0.iter().map(|c| u32::from_be_bytes(*c)).collect()
    }

    #[test]
    fn the_tree_says_what_a_kernel_needs() {
        let description = Description {
            harts: 2,
            memory: 512 << 20,
            virtio: 2,
            bootargs: "console=ttyS0".into(),
            initrd: Some((0x9020_0000, 0x9030_0000)),
            rng_seed: vec![7; 32],
        };
        let all = properties(&build(&description).expect("tree"));
        let get = |path: &str, name: &str| {
            let found = all.iter().find(|(p, n, _)| p == path && n == name);
            found.unwrap_or_else(|| panic!("{path}: {name}")).2.clone()
        };
        assert_eq!(cells(&get("/memory@80000000", "reg")), [0, 0x8000_0000, 0, 512 << 20]);
        assert_eq!(get("/chosen", "bootargs"), b"console=ttyS0\0");
        assert_eq!(get("/chosen", "linux,initrd-start"), 0x9020_0000_u64.to_be_bytes());
        assert_eq!(get("/chosen", "rng-seed").len(), 32);
        assert_eq!(get("/chosen", "stdout-path"), b"/soc/serial@10000000\0");
        assert_eq!(cells(&get("/cpus", "timebase-frequency")), [10_000_000]);
        assert_eq!(cells(&get("/cpus/cpu@1", "reg")), [1]);
        let isa = String::from_utf8(get("/cpus/cpu@0", "riscv,isa")).expect("text");
        assert!(isa.starts_with("rv64imafdc_zicntr_"), "{isa}");
        let list = get("/cpus/cpu@0", "riscv,isa-extensions");
        for extension in ["i", "m", "a", "f", "d", "c", "zicsr", "zbs", "sstc", "svadu", "svpbmt"] {
            assert!(list.split(|b| *b == 0).any(|e| e == extension.as_bytes()), "{extension}");
        }
        let plic = "/soc/plic@c000000";
        assert_eq!(cells(&get(plic, "interrupts-extended")), [1, 11, 1, 9, 2, 11, 2, 9]);
        assert_eq!(cells(&get("/soc/clint@2000000", "interrupts-extended")), [1, 3, 1, 7, 2, 3, 2, 7]);
        assert_eq!(cells(&get("/soc/virtio_mmio@10002000", "interrupts")), [2]);
        assert!(!all.iter().any(|(path, ..)| path == "/soc/virtio_mmio@10003000"));
        assert_eq!(get("/poweroff", "regmap"), get("/soc/test@100000", "phandle"));
        assert_eq!(cells(&get("/reboot", "value")), [0x7777]);
    }
}
