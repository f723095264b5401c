//! Who holds the lock on a file, from the kernel's list of locks. Pure.

/// The process that holds a `flock` on a file according to the text of `/proc/locks`, whose lines read
/// `1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF` (major and minor device number in hex, inode in decimal; a waiter's line
/// has `->` after its number). `None` where it says nothing, as for a process outside this container.
pub(super) fn of(locks: &str, major: u32, minor: u32, inode: u64) -> Option<u32> {
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        if words.next() != Some("FLOCK") {
            return None;
        }
        let pid = words.nth(2)?.parse().ok().filter(|pid| *pid > 0)?;
        (words.next() == Some(file.as_str())).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn the_holder_is_found_and_no_one_else() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fd:00:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 22 fd:00:77 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 33 fd:00:77 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 0 fd:01:77 0 EOF\n";
        assert_eq!(of(locks, 0xfd, 0, 77), Some(22));
        assert_eq!(of(locks, 0xfd, 1, 77), None);
        assert_eq!(of(locks, 0xfd, 0, 7), None);
        assert_eq!(of("", 8, 1, 77), None);
    }
}
