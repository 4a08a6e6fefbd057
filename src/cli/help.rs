//! The longer texts of `--help`. Prose is one line a paragraph, which is wrapped to the terminal; examples fit 80 columns.

/// Below `magnetfs --help`.
pub(super) const PROGRAM: &str = "\
Examples:
  magnetfs mount ~/Torrents 'magnet:?xt=urn:btih:...'
          mount, and leave it running
  mpv ~/Torrents/Film.mkv
          play while it downloads, in another terminal
  magnetfs add film.torrent
          add another one to the running mount
  magnetfs list
          what there is, and how much of it is here
  magnetfs unmount
          end it; what is stored stays for the next time

Every option may also stand in ~/.config/magnetfs/config.toml (upload-limit = \"512K\") or in a variable \
(MAGNETFS_UPLOAD_LIMIT=512K). The command line goes over the variable, the variable over the file.

Exit status: 0 done, 1 it failed and stderr says why, 2 the command line is not understood.";

/// Below `magnetfs mount --help`.
pub(super) const MOUNT: &str = "\
Examples:
  magnetfs mount ~/Torrents
          the torrents that were added before; more with `magnetfs add`
  magnetfs mount ~/Torrents 'magnet:?xt=urn:btih:...' film.torrent
          these too; quote magnet links: & means something to the shell
  magnetfs mount ~/Torrents --download whole --listen 0.0.0.0:6881
          fetch everything, and let other peers connect
  magnetfs mount ~/Torrents --seed always --listen 0.0.0.0:6881 --upload-limit 1M
          go on giving what is complete to others; --seed never stops at that point
  magnetfs mount ~/Torrents --dht off --lsd off --trackers off \\
          --peer 192.0.2.7:6881 film.torrent
          ask nobody but this peer
  magnetfs mount ~/Torrents --http 0.0.0.0:8642
          let the living room in: `magnetfs status` shows the address to open

It stays in the foreground, prints `mounted MOUNTPOINT` when the files are there, and ends with Ctrl-C, SIGTERM, \
`magnetfs unmount` or `fusermount3 -u MOUNTPOINT`. To have it always: `systemctl --user enable --now magnetfs`.

Beside the mount it serves a player page, HLS and the files over HTTP, to this machine alone unless --http says \
otherwise. A token is better in the configuration file or in MAGNETFS_HTTP_TOKEN than on the line, which others can see.

Sizes and rates: K, M, G and T count in 1024s, as in 512K, 1.5M or 2MiB. The mount is always read-only.";

/// Below `magnetfs add --help`.
pub(super) const ADD: &str = "\
Examples:
  magnetfs add film.torrent
          its files are there at once
  magnetfs add 'magnet:?xt=urn:btih:...'
          waits until a peer has told what is in it
  magnetfs add --no-wait 'magnet:?xt=urn:btih:...'
          does not; its files appear when they are known
  magnetfs add 0123456789abcdef0123456789abcdef01234567 --peer 192.0.2.7:6881
          by its info hash alone, from this peer

It prints the path to open. What is in the library already is no error.";

/// Below `magnetfs list --help`.
pub(super) const LIST: &str = "\
States: resolving (no peer has told yet what a magnet link is), parked (at rest; the first read wakes it), active \
(connected), checking (stored data is compared with its hashes), complete, paused, error.

Examples:
  magnetfs list
  magnetfs list --json | jq -r '.[] | select(.state == \"complete\") | .path'";

/// Below `magnetfs show --help`.
pub(super) const SHOW: &str = "\
Examples:
  magnetfs show Film.mkv             each file with how much of it is here
  magnetfs show 01234567             by the first digits of its info hash
  magnetfs show Film.mkv --follow    a progress bar until all of it is here";

/// Below `magnetfs remove --help`.
pub(super) const REMOVE: &str = "\
Examples:
  magnetfs remove Film.mkv
          what was downloaded stays, for when it is added again
  magnetfs remove Film.mkv --delete-data
          what was downloaded goes too";

/// Below `magnetfs doctor --help`.
pub(super) const DOCTOR: &str = "\
It changes nothing. Exit status: 1 if anything failed that `mount` needs.

Examples:
  magnetfs doctor
  magnetfs doctor --json | jq -r '.[] | select(.level == \"fail\") | .remedy'";

/// Below `magnetfs completions --help`.
pub(super) const COMPLETIONS: &str = "\
Examples:
  magnetfs completions bash > /etc/bash_completion.d/magnetfs
  magnetfs completions zsh > ~/.zfunc/_magnetfs
  magnetfs completions fish > ~/.config/fish/completions/magnetfs.fish";

/// Below `magnetfs man --help`.
pub(super) const MAN: &str = "\
Examples:
  magnetfs man | man -l -
  magnetfs man > /usr/local/share/man/man1/magnetfs.1";
