//! How many playlists and cached segments a second are served to 64 connections, against nginx serving the same bytes
//! as plain files.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::swarm::{Libtorrent, free_address};
use crate::support::trials::watched;
use crate::support::web::Web;
use crate::support::{Background, DaemonOptions, Work, eventually, run};
use crate::table;

const SECONDS: &str = "8s";

pub(crate) fn compare() {
    let film = watched(false);
    let seeder = Libtorrent::seed(&[&film]);
    let work = Work::new();
    let options = DaemonOptions::new(&work);
    let daemon = options.torrent(&film).peer(seeder.address).start();
    let web = Web::of(&daemon);
    let base = format!("hls/{}/{}/", film.info_hash, film.name);
    let files = work.directory("files");
    let mut rows = Vec::new();
    let server = nginx(&work, &files);
    for name in ["video.m3u8", "video/0.m4s"] {
        let body = web.get(&format!("{base}{name}")).ok().body;
        fs::create_dir_all(files.join("video")).expect("a folder");
        fs::write(files.join(name), &body).expect("the same bytes");
        let (ours, our_worst) = load(web.address, &format!("{base}{name}"));
        let (theirs, their_worst) = load(server.0, name);
        rows.push((
            format!("{name}, {} KiB", body.len() / 1024),
            vec![
                format!("{ours:.0}/s"),
                our_worst,
                format!("{theirs:.0}/s"),
                their_worst,
                format!("{:.2}", ours / theirs),
            ],
        ));
    }
    daemon.stop();
    table(
        "Requests served to 64 connections",
        &["magnetfs", "p99", "nginx", "p99", "ratio"],
        &rows,
    );
}

/// nginx with as many workers as the machine has cores, on the files of a folder.
fn nginx(work: &Work, files: &Path) -> (SocketAddr, Background) {
    let address = free_address();
    let folder = work.directory("nginx");
    let configuration = folder.join("nginx.conf");
    let [folder, files] = [&folder, files].map(|path| path.display().to_string());
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    fs::write(
        &configuration,
        format!(
            "{user} daemon off; worker_processes auto; pid {folder}/pid; error_log stderr;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; root {files};\n\
             client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;\n\
             uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;\n\
             server {{ listen {address}; }} }}\n"
        ),
    )
    .expect("a configuration");
    let mut command = Command::new("nginx");
    let server = Background::spawn(command.arg("-c").arg(&configuration));
    eventually("nginx listens", Duration::from_secs(10), || {
        std::net::TcpStream::connect(address).ok()
    });
    (address, server)
}

/// Requests a second, and the time below which 99 of 100 were answered.
fn load(address: SocketAddr, path: &str) -> (f64, String) {
    let mut command = Command::new("wrk");
    command
        .args(["-t2", "-c64", "-d", SECONDS, "--latency"])
        .arg(format!("http://{address}/{path}"));
    let text = run(&mut command, Duration::from_secs(60)).ok().text();
    assert!(!text.contains("Non-2xx"), "{text}");
    let word = |line: &str| {
        text.lines()
            .find_map(|found| found.trim().strip_prefix(line))
            .map(|rest| rest.trim().to_owned())
    };
    let rate = word("Requests/sec:").and_then(|rate| rate.parse().ok());
    (rate.expect("a rate"), word("99%").expect("a percentile"))
}
