//! Which processors programs run on.

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Calls `f` on one processor, if one is named, so that every program that `f` starts stays there.
///
/// A program inherits the processors of the thread that starts it. Setting them on a running program instead would
/// be unfair to those that look once, at their start, how many processors there are.
///
/// # Errors
/// When the machine has no such processor, or `f` fails.
pub(super) fn on<T>(processor: Option<usize>, f: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(processor) = processor else {
        return f();
    };
    let this_thread = Pid::from_raw(0);
    let before = sched_getaffinity(this_thread)?;
    let mut only = CpuSet::new();
    only.set(processor)?;
    sched_setaffinity(this_thread, &only).with_context(|| format!("there is no processor {processor}"))?;
    let result = f();
    sched_setaffinity(this_thread, &before)?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_holds_inside_and_is_taken_back_also_after_a_failure() {
        let count = || {
            let set = sched_getaffinity(Pid::from_raw(0)).unwrap();
            (0..CpuSet::count()).filter(|processor| set.is_set(*processor).unwrap()).count()
        };
        let before = count();
        assert_eq!(on(Some(0), || Ok(count())).unwrap(), 1);
        on::<()>(Some(0), || anyhow::bail!("no")).unwrap_err();
        assert_eq!(count(), before);
        assert_eq!(on(None, || Ok(count())).unwrap(), before);
    }
}
