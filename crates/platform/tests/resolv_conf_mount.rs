//! `resolv.conf` as containers have it: a mount point that cannot be replaced, only rewritten.

#[expect(dead_code, reason = "each test file uses its part of the helpers")]
mod namespace;

use std::fs;

use adit_platform::dns_control::{DnsControl as _, DnsSettings, ResolvConf};
use namespace::isolated;
use nix::mount::{MsFlags, mount};

const ORIGINAL: &str = "nameserver 192.0.2.53\n# a long comment that makes the original longer than ours is going to be, so that a file that was \
rewritten in place and not shortened would keep its end\n# and still longer, and longer, and longer, and longer\n";

#[test]
fn a_mount_point_is_rewritten_in_place_and_restored() {
    isolated(|| async {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (path, source) = (directory.path().join("resolv.conf"), directory.path().join("source"));
        fs::write(&path, "").expect("writes");
        fs::write(&source, ORIGINAL).expect("writes");
        mount(Some(&source), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("binds");
        let state = directory.path().join("state");
        let settings =
            DnsSettings { servers: vec!["100.64.0.53".parse().expect("address")], search: Vec::new() };
        for crash in [false, true] {
            let mut control = ResolvConf::new(&path, &state);
            control.apply(&settings).await.expect("applies");
            let text = fs::read_to_string(&source).expect("the mounted file itself changed");
            assert!(text.contains("nameserver 100.64.0.53\n") && !text.contains("longer"), "{text}");
            if crash {
                ResolvConf::new(&path, &state).recover().await.expect("recovers");
            } else {
                control.clear().await.expect("clears");
            }
            assert_eq!(fs::read_to_string(&source).expect("reads"), ORIGINAL);
        }
    });
}
