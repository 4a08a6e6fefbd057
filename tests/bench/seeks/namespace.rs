//! A network namespace for the bench, so that what it does to loopback is done to nobody else.

use std::process::Command;

use crate::support::shell;

const INSIDE: &str = "MAGNETFS_BENCH_NAMESPACE";

/// Whether this is the process inside. Outside it is run, and waited for.
pub(super) fn entered() -> bool {
    if std::env::var_os(INSIDE).is_some() {
        // Small packets, as they are on a real line: tc delays whole ones.
        tc("ip link set lo mtu 1500 && ip link set lo up && tc qdisc replace dev lo root handle 1: htb");
        return true;
    }
    if !rustix::process::getuid().is_root() {
        println!("seeks: left out, for it needs root to shape a network of its own");
        return false;
    }
    let program = std::env::current_exe().expect("this program's path");
    let mut command = Command::new("unshare");
    command.arg("--net").arg(program).arg("seeks").env(INSIDE, "1");
    let status = command.status().expect("unshare");
    assert!(status.success(), "the part in the namespace ended with {status}");
    false
}

/// Runs a line of shell that configures the namespace.
pub(super) fn tc(script: &str) {
    let outcome = crate::support::run(&mut shell(script, &[]), std::time::Duration::from_secs(30));
    outcome.ok();
}
