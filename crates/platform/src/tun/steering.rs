//! Which queue of a TUN device a packet comes out of: always the same for all packets of a flow.
//!
//! Left to itself the kernel moves a flow to the queue that its packets were last written to. Two threads would then
//! have packets of one flow at the same time, and one of them overtakes the other. So the device gets a small program
//! (eBPF, `TUNSETSTEERINGEBPF`) that computes the queue from addresses and ports alone. Fragments have no ports, so
//! neither do first fragments for it, and all fragments of a packet stay together.
//!
//! The program is put together here, instruction by instruction, because it is the only one and a compiler for it would
//! be larger than this file.

use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;

use crate::interface_request::set_steering;

/// One instruction of eBPF (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    /// Destination in the low four bits, source in the high ones.
    registers: u8,
    offset: i16,
    immediate: i32,
}

// Registers: loads put their result into the first one and need the packet in the sixth.
const RESULT: u8 = 0;
const ARGUMENT: u8 = 1;
const PACKET: u8 = 6;
const PROTOCOL: u8 = 7;
const HASH: u8 = 8;
const HEADER: u8 = 9;

/// Offsets from the network header, wherever the packet begins (`SKF_NET_OFF`).
const NETWORK: i32 = -0x10_0000;

/// An odd number with well-mixed bits (the golden ratio's).
const MULTIPLIER: i32 = 0x9e37_79b1_u32.cast_signed();

const fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, immediate }
}

const fn copy(to: u8, from: u8) -> Instruction {
    instruction(0xbf, to, from, 0, 0) // BPF_ALU64 | BPF_MOV | BPF_X
}

const fn load_word(at: i32) -> Instruction {
    instruction(0x20, RESULT, 0, 0, NETWORK + at) // BPF_LD | BPF_ABS | BPF_W
}

const fn load_half(at: i32) -> Instruction {
    instruction(0x28, RESULT, 0, 0, NETWORK + at) // BPF_LD | BPF_ABS | BPF_H
}

const fn load_byte(at: i32) -> Instruction {
    instruction(0x30, RESULT, 0, 0, NETWORK + at) // BPF_LD | BPF_ABS | BPF_B
}

/// Loads the word at the offset that `register` holds.
const fn load_word_at(register: u8) -> Instruction {
    instruction(0x40, RESULT, register, 0, NETWORK) // BPF_LD | BPF_IND | BPF_W
}

/// 32-bit arithmetic with a constant.
const fn and(register: u8, mask: i32) -> Instruction {
    instruction(0x54, register, 0, 0, mask)
}
const fn shift_left(register: u8, bits: i32) -> Instruction {
    instruction(0x64, register, 0, 0, bits)
}
const fn shift_right(register: u8, bits: i32) -> Instruction {
    instruction(0x74, register, 0, 0, bits)
}
const fn set(register: u8, value: i32) -> Instruction {
    instruction(0xb4, register, 0, 0, value)
}

/// Jumps over `skip` instructions when the register (not) equals the value.
const fn skip_if(register: u8, value: i32, skip: i16) -> Instruction {
    instruction(0x15, register, 0, skip, value)
}
const fn skip_unless(register: u8, value: i32, skip: i16) -> Instruction {
    instruction(0x55, register, 0, skip, value)
}
const fn skip(skip: i16) -> Instruction {
    instruction(0x05, 0, 0, skip, 0)
}
const EXIT: Instruction = instruction(0x95, 0, 0, 0, 0);

/// Takes what was loaded into the hash: HASH = (HASH + RESULT) * MULTIPLIER, then the high bits into the low ones.
const MIX: [Instruction; 5] = [
    instruction(0x0c, HASH, RESULT, 0, 0),     // add
    instruction(0x24, HASH, 0, 0, MULTIPLIER), // multiply
    instruction(0xbc, RESULT, HASH, 0, 0),     // copy
    instruction(0x74, RESULT, 0, 0, 15),       // shift right
    instruction(0xac, HASH, RESULT, 0, 0),     // exclusive or
];

/// Mixes in the ports, for TCP and UDP; HEADER holds where they are.
fn ports(code: &mut Vec<Instruction>) {
    code.extend([skip_if(PROTOCOL, libc::IPPROTO_TCP, 1), skip_unless(PROTOCOL, libc::IPPROTO_UDP, 6)]);
    code.push(load_word_at(HEADER));
    code.extend(MIX);
}

fn end(code: &mut Vec<Instruction>) {
    code.extend([copy(RESULT, HASH), shift_right(RESULT, 8), EXIT]);
}

/// A packet that is cut short ends the program with queue 0.
fn program() -> Vec<Instruction> {
    let mut ipv4 = Vec::new();
    for word in [12, 16] {
        ipv4.push(load_word(word));
        ipv4.extend(MIX);
    }
    ipv4.extend([load_byte(9), copy(PROTOCOL, RESULT)]);
    // More fragments, or not the first: as if it had no ports.
    ipv4.extend([load_half(6), and(RESULT, 0x3fff), skip_if(RESULT, 0, 1), set(PROTOCOL, 0)]);
    ipv4.extend([load_byte(0), and(RESULT, 0xf), shift_left(RESULT, 2), copy(HEADER, RESULT)]);
    ports(&mut ipv4);
    end(&mut ipv4);

    let mut code = vec![copy(PACKET, ARGUMENT), set(HASH, 0), load_byte(0), shift_right(RESULT, 4)];
    code.extend([skip_if(RESULT, 6, 1), skip(0)]);
    let to_ipv4 = code.len() - 1;
    for word in (8..40).step_by(4) {
        code.push(load_word(word));
        code.extend(MIX);
    }
    code.extend([load_byte(6), copy(PROTOCOL, RESULT), set(HEADER, 40)]);
    ports(&mut code);
    end(&mut code);
    code[to_ipv4].offset = (code.len() - to_ipv4 - 1) as i16;
    code.extend(ipv4);
    code
}

/// Makes the device keep every flow on one queue.
///
/// # Errors
/// `EPERM` without the right to load programs (`CAP_BPF`), and what else the kernel says to the program or the device.
pub(super) fn steer(device: BorrowedFd<'_>) -> Result<(), Errno> {
    let program = load(&program())?;
    // The device keeps it for as long as it needs it.
    set_steering(device, program.as_fd())
}

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes the rest as zero.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    count: u32,
    code: u64,
    license: u64,
}

#[expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]
fn load(code: &[Instruction]) -> Result<OwnedFd, Errno> {
    const PROGRAM_LOAD: libc::c_long = 5;
    const SOCKET_FILTER: u32 = 1;
    let attributes = LoadAttributes {
        kind: SOCKET_FILTER,
        count: code.len() as u32,
        code: code.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
    };
    let size = size_of::<LoadAttributes>();
    // SAFETY: `attributes` is a correct prefix of `union bpf_attr` of the given size, and it and what it points to
    // outlive the call, which only reads them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROGRAM_LOAD, &raw const attributes, size) };
    let descriptor = Errno::result(result)?;
    // SAFETY: the kernel has just made this descriptor for us, close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })
}
