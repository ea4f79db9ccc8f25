//! For how long at a time the system lets a thread compute.
#![allow(unsafe_code)]

use std::io;
use std::time::Duration;

/// What a thread that computes asks for: a few times what Linux gives by itself, and no more than what a step takes. Whoever shares
/// cores with it gets as much as before.
const TURN: Duration = Duration::from_millis(10);

/// Ordinary policies of `sched(7)`: who has another one knows why.
const NORMAL: [u32; 2] = [libc::SCHED_OTHER as u32, libc::SCHED_BATCH as u32];

/// `struct sched_attr` of `sched_setattr(2)`, as its first version has it.
#[repr(C)]
#[derive(Debug, Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// Of ordinary threads the length of a turn in nanoseconds, 0.1 to 100 ms; before Linux 6.12 it means nothing.
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Asks for longer turns for this thread, at the same share of the cores. Threads that have little to do, as those that pass rows
/// on, then come before it sooner: it has time.
///
/// # Errors
/// What the system says; the thread computes as well without.
pub(crate) fn ask_for_long_turns() -> io::Result<()> {
    let mut attributes = read()?;
    if NORMAL.contains(&attributes.policy) {
        attributes.runtime = TURN.as_nanos() as u64;
        write(&attributes)?;
    }
    Ok(())
}

/// Of this thread.
fn read() -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    let size = size_of::<Attributes>() as u32;
    // SAFETY: the call writes at most `size` bytes behind the pointer, which are those of `attributes`; it has any bits.
    checked(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) })?;
    Ok(attributes)
}

fn write(attributes: &Attributes) -> io::Result<()> {
    debug_assert!(attributes.size as usize <= size_of::<Attributes>());
    // SAFETY: the call reads as many bytes behind the pointer as `size` says, which `read` has set: those of `attributes`.
    checked(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const *attributes, 0) })
}

fn checked(result: libc::c_long) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_longer_turns_and_is_otherwise_as_before() {
        let before = read().unwrap();
        ask_for_long_turns().unwrap();
        let after = read().unwrap();
        let others = |of: &Attributes| (of.size, of.policy, of.flags, of.nice, of.priority);
        assert_eq!(others(&after), others(&before));
        // Older systems say nothing of it.
        assert!([0, TURN.as_nanos() as u64].contains(&after.runtime), "{after:?}");
    }
}
