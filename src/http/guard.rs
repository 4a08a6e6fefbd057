//! Who is let in. A browser carries requests of any page that it shows to any address, ours too, so the address alone
//! proves nothing:
//!
//! - The Host header must name us. A page whose name was pointed at this machine (DNS rebinding) gives its own name.
//! - What changes something must come from our own page, or with the token.
//! - What another page embeds or fetches is refused; a link to us may be followed.
//! - Beyond loopback, and wherever a token was set, every address begins with `/t/<token>/`.

use std::net::IpAddr;

use axum::http::header::{HOST, HeaderMap, ORIGIN};
use axum::http::request::Parts;
use axum::http::uri::{Authority, PathAndQuery};
use axum::http::{Method, StatusCode, Uri};
use subtle::ConstantTimeEq;

use super::host::{Host, Place};

/// The rules of one server.
#[derive(Clone)]
pub(super) struct Guard {
    /// What we answer to besides our own names and addresses.
    hosts: Vec<Host>,
    token: Option<String>,
}

/// A request that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Admitted {
    /// The path below the token, and the query.
    pub(super) target: Uri,
    /// Where the page's root is for this client: `http://host:port/`, or that and `t/<token>/`; `https` where a proxy
    /// says so.
    pub(super) root: String,
}

/// Why a request was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    /// No Host header, several of them, or none that can be read.
    #[error("the request says in no clear way which host it means")]
    NoHost,
    /// Another name than ours.
    #[error("this server does not answer to that name; --http-host lets it")]
    ForeignHost,
    /// Neither a path nor an address with one.
    #[error("the request's target is no path")]
    Target,
    /// The address does not begin with the token.
    #[error("the address lacks the token: `magnetfs status` shows the whole one")]
    NoToken,
    /// Another page embeds or fetches it.
    #[error("another site's page may link to this one and nothing else")]
    ForeignPage,
    /// It would change something, and does not come from our page.
    #[error(
        "this changes something, so it must come from the page itself: a program sends `Sec-Fetch-Site: same-origin`"
    )]
    ForeignWrite,
    /// The token without the slash after it, which relative addresses need.
    #[error("the page's address ends with a slash")]
    NoSlash,
}

impl Denied {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Denied::NoHost | Denied::Target => StatusCode::BAD_REQUEST,
            Denied::ForeignHost => StatusCode::MISDIRECTED_REQUEST,
            Denied::NoToken | Denied::ForeignPage | Denied::ForeignWrite => StatusCode::FORBIDDEN,
            Denied::NoSlash => StatusCode::PERMANENT_REDIRECT,
        }
    }
}

impl Guard {
    pub(super) fn new(hosts: &[String], token: Option<String>) -> Guard {
        let hosts = hosts.iter().map(|host| Host::of(host)).collect();
        Guard { hosts, token }
    }

    /// Judges a request that came to our address `local`.
    ///
    /// # Errors
    /// Why it is not let in.
    pub(super) fn admit(&self, request: &Parts, local: IpAddr) -> Result<Admitted, Denied> {
        let authority = self.host(request, local)?;
        let host = authority.as_str().to_ascii_lowercase();
        let target = request.uri.path_and_query().ok_or(Denied::Target)?;
        if !target.path().starts_with('/') {
            return Err(Denied::Target);
        }
        let headers = &request.headers;
        let scheme = scheme(headers);
        let (target, root) = match &self.token {
            None => (target.clone(), format!("{scheme}://{host}/")),
            Some(token) => (below_token(target, token)?, format!("{scheme}://{host}/t/{token}/")),
        };
        let site = text(headers, "sec-fetch-site");
        let reads = request.method == Method::GET || request.method == Method::HEAD;
        if matches!(site, Some("cross-site" | "same-site")) {
            let follows_link = text(headers, "sec-fetch-mode") == Some("navigate")
                && text(headers, "sec-fetch-dest").is_none_or(|dest| dest == "document");
            if !(reads && follows_link) {
                return Err(if reads {
                    Denied::ForeignPage
                } else {
                    Denied::ForeignWrite
                });
            }
        }
        if !reads && !self.may_write(headers, &authority) {
            return Err(Denied::ForeignWrite);
        }
        let target = Uri::from(target);
        Ok(Admitted { target, root })
    }

    /// The one host that the request means, once it is known to be us.
    fn host(&self, request: &Parts, local: IpAddr) -> Result<Authority, Denied> {
        let mut given = request.headers.get_all(HOST).iter();
        let (Some(host), None) = (given.next(), given.next()) else {
            return Err(Denied::NoHost);
        };
        let host: Authority = host
            .to_str()
            .ok()
            .and_then(|host| host.parse().ok())
            .ok_or(Denied::NoHost)?;
        // A target in absolute form names a host too, and by RFC 9112 that one counts: so both must be us.
        for authority in [Some(&host), request.uri.authority()].into_iter().flatten() {
            let place = Place::of(authority).ok_or(Denied::NoHost)?;
            if !self.is_us(&place.host, local) {
                return Err(Denied::ForeignHost);
            }
        }
        Ok(host)
    }

    /// The port is not looked at: a tunnel or a container may give us another, and it proves nothing.
    fn is_us(&self, host: &Host, local: IpAddr) -> bool {
        let own = match host {
            Host::Address(address) => address.is_loopback() || *address == local.to_canonical(),
            Host::Name(name) => name == "localhost",
        };
        own || self.hosts.contains(host)
    }

    fn may_write(&self, headers: &HeaderMap, host: &Authority) -> bool {
        let site = text(headers, "sec-fetch-site");
        match text(headers, ORIGIN.as_str()) {
            Some(origin) => is_of(origin, host) && site.is_none_or(|site| site == "same-origin"),
            // Who knows the token was given it.
            None => site.map_or(self.token.is_some(), |site| site == "same-origin"),
        }
    }
}

/// Whether a page of this origin came from this host. A proxy may name the port that goes without saying in an origin.
fn is_of(origin: &str, host: &Authority) -> bool {
    let (authority, usual_port) = match origin.split_once("://") {
        Some(("http", authority)) => (authority, 80),
        Some(("https", authority)) => (authority, 443),
        _ => return false,
    };
    let place = |authority: &Authority| Place::of(authority);
    match (authority.parse().ok().as_ref().and_then(place), place(host)) {
        (Some(one), Some(other)) => one.is(&other, usual_port),
        _ => false,
    }
}

/// What a header says, of several the first; one that cannot be read counts as a foreign word.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

/// What the client speaks: a proxy that ends TLS before us says it. Whoever forges that misleads nobody but himself, and
/// another site's page cannot, since it may not send us such a header.
fn scheme(headers: &HeaderMap) -> &'static str {
    let first = text(headers, "x-forwarded-proto").and_then(|proxies| proxies.split(',').next());
    match first.map(str::trim) {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => "https",
        _ => "http",
    }
}

/// What stands below `/t/<token>`, from the slash on.
fn below_token(target: &PathAndQuery, token: &str) -> Result<PathAndQuery, Denied> {
    let below = target.as_str().strip_prefix("/t/").ok_or(Denied::NoToken)?;
    let end = below.find(['/', '?']).unwrap_or(below.len());
    let (given, rest) = below.split_at(end);
    // The time must not tell how much of it was right.
    if !bool::from(given.as_bytes().ct_eq(token.as_bytes())) {
        return Err(Denied::NoToken);
    }
    if !rest.starts_with('/') {
        return Err(Denied::NoSlash);
    }
    rest.parse().map_err(|_| Denied::Target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    const TOKEN: &str = "0123456789abcdef";
    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn asked(
        guard: &Guard,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        local: IpAddr,
    ) -> Result<String, Denied> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        guard.admit(&parts, local).map(|admitted| admitted.target.to_string())
    }

    fn get(target: &str, headers: &[(&str, &str)]) -> Result<String, Denied> {
        let guard = Guard::new(
            &["Media.lan.", "2001:DB8:0::9", "::ffff:192.0.2.9"].map(str::to_owned),
            None,
        );
        asked(&guard, "GET", target, headers, LOOPBACK)
    }

    #[test]
    fn only_our_own_names_are_answered() {
        for host in [
            "localhost",
            "LOCALHOST:8642",
            "localhost.",
            "127.0.0.1",
            "127.0.0.1:8642",
            "127.9.9.9",
            "[::1]:8642",
            "[::ffff:127.0.0.1]",
            "media.lan:80",
            "Media.LAN",
            "Media.LAN.:443",
            "media.lan:",
            "[2001:db8::9]:1",
            "[2001:0DB8:0:0:0:0:0:9]",
            "192.0.2.9",
            "[::FFFF:c000:209]:80",
        ] {
            assert_eq!(get("/", &[("host", host)]), Ok("/".to_owned()), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example:8642",
            "192.0.2.1",
            "0.0.0.0:8642",
            "[::]",
            "[2001:db8::8]",
            "2130706433",
            "127.1",
            "a.media.lan",
            "media.lan..",
            ".media.lan",
            "media.lan.evil.example",
            "media-lan",
            "[media.lan]",
            "[::ffff:192.0.2.8]",
            "localhost..",
        ] {
            assert_eq!(get("/", &[("host", host)]), Err(Denied::ForeignHost), "{host}");
        }
        for host in [
            "",
            "a b",
            "localhost@evil.example",
            "user@localhost",
            "/",
            "localhost:x",
            "media.lan:99999",
            "media.lan:80:80",
            "[2001:db8::9].evil.example",
            "media.lan, evil.example",
            "media.lan:80@evil.example",
        ] {
            assert!(get("/", &[("host", host)]).is_err(), "{host}");
        }
        assert_eq!(get("/", &[]), Err(Denied::NoHost));
        assert_eq!(
            get("/", &[("host", "localhost"), ("host", "localhost")]),
            Err(Denied::NoHost)
        );
    }

    #[test]
    fn our_address_is_the_one_that_was_connected_to() {
        let guard = Guard::new(&[], None);
        let local: IpAddr = "192.0.2.7".parse().unwrap();
        let from = |host: &str, local| asked(&guard, "GET", "/", &[("host", host)], local);
        assert!(from("192.0.2.7:8642", local).is_ok());
        assert_eq!(from("192.0.2.8", local), Err(Denied::ForeignHost));
        assert_eq!(from("192.0.2.7", LOOPBACK), Err(Denied::ForeignHost));
        // A listener on [::] sees IPv4 clients so.
        assert!(from("192.0.2.7", "::ffff:192.0.2.7".parse().unwrap()).is_ok());
    }

    #[test]
    fn a_target_in_absolute_form_names_us_too() {
        let own = ("host", "localhost");
        assert_eq!(get("http://127.0.0.1:8642/a?b", &[own]), Ok("/a?b".to_owned()));
        assert_eq!(get("http://evil.example/a", &[own]), Err(Denied::ForeignHost));
        assert_eq!(
            get("http://localhost/a", &[("host", "evil.example")]),
            Err(Denied::ForeignHost)
        );
        assert_eq!(get("http://user@localhost/a", &[own]), Err(Denied::NoHost));
        assert_eq!(get("*", &[own]), Err(Denied::Target));
        assert_eq!(get("localhost:80", &[own]), Err(Denied::Target));
    }

    #[test]
    fn every_address_begins_with_the_token_where_there_is_one() {
        let guard = Guard::new(&[], Some(TOKEN.to_owned()));
        let get = |target: &str| asked(&guard, "GET", target, &[("host", "localhost")], LOOPBACK);
        assert_eq!(get(&format!("/t/{TOKEN}/")), Ok("/".to_owned()));
        assert_eq!(
            get(&format!("/t/{TOKEN}/files/a%2520b?x=/t/")),
            Ok("/files/a%2520b?x=/t/".to_owned())
        );
        assert_eq!(get(&format!("http://localhost/t/{TOKEN}/a")), Ok("/a".to_owned()));
        assert_eq!(get(&format!("/t/{TOKEN}")), Err(Denied::NoSlash));
        assert_eq!(get(&format!("/t/{TOKEN}?a")), Err(Denied::NoSlash));
        for target in [
            "/".to_owned(),
            "/api/torrents".to_owned(),
            "/t/".to_owned(),
            "/t//".to_owned(),
            format!("/t/{TOKEN}0/"),
            format!("/t/{}/", &TOKEN[1..]),
            format!("/T/{TOKEN}/"),
            format!("//t/{TOKEN}/"),
            format!("/?t={TOKEN}"),
        ] {
            assert_eq!(get(&target), Err(Denied::NoToken), "{target}");
        }
    }

    #[test]
    fn an_origin_need_not_name_its_usual_port() {
        let guard = Guard::new(&["media.lan".to_owned()], None);
        let post = |host: &str, origin: &str| {
            asked(
                &guard,
                "POST",
                "/api/torrents",
                &[("host", host), ("origin", origin)],
                LOOPBACK,
            )
            .map(drop)
        };
        for (host, origin) in [
            ("media.lan", "https://media.lan"),
            ("media.lan:443", "https://media.lan"),
            ("media.lan:80", "http://media.lan"),
            ("Media.lan.", "http://media.lan:80"),
            ("[::1]:8642", "http://[0:0::1]:8642"),
        ] {
            assert_eq!(post(host, origin), Ok(()), "{host} {origin}");
        }
        for (host, origin) in [
            ("media.lan:80", "https://media.lan"),
            ("media.lan:443", "http://media.lan"),
            ("media.lan", "http://media.lan:8642"),
            ("media.lan", "http://localhost"),
        ] {
            assert_eq!(post(host, origin), Err(Denied::ForeignWrite), "{host} {origin}");
        }
    }

    #[test]
    fn the_root_is_what_the_client_calls_us() {
        let guard = Guard::new(&["media.lan".to_owned()], Some(TOKEN.to_owned()));
        for (host, proxies, root) in [
            ("Media.lan:8642", None, "http://media.lan:8642"),
            ("media.lan", Some("https"), "https://media.lan"),
            ("media.lan:8443", Some("HTTPS , http"), "https://media.lan:8443"),
            ("media.lan", Some("http, https"), "http://media.lan"),
            ("media.lan", Some("javascript"), "http://media.lan"),
            ("media.lan", Some(""), "http://media.lan"),
        ] {
            let request = Request::builder().uri(format!("/t/{TOKEN}/")).header("host", host);
            let request = match proxies {
                Some(proxies) => request.header("x-forwarded-proto", proxies),
                None => request,
            };
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let admitted = guard.admit(&parts, LOOPBACK).map(|admitted| admitted.root);
            assert_eq!(admitted, Ok(format!("{root}/t/{TOKEN}/")), "{host} {proxies:?}");
        }
    }

    #[test]
    fn what_changes_something_comes_from_our_page() {
        let guard = Guard::new(&[], None);
        let host = ("host", "localhost:8642");
        let post = |headers: &[(&str, &str)]| {
            let all: Vec<_> = [host].iter().chain(headers).copied().collect();
            asked(&guard, "POST", "/api/torrents", &all, LOOPBACK).map(drop)
        };
        let (same, cross) = (("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site"));
        assert_eq!(post(&[same]), Ok(()));
        assert_eq!(post(&[("origin", "http://localhost:8642")]), Ok(()));
        assert_eq!(post(&[same, ("origin", "http://LOCALHOST:8642")]), Ok(()));
        for foreign in [
            &[][..],
            &[cross],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "none")],
            &[("origin", "http://localhost:3000")],
            &[("origin", "http://evil.example")],
            &[("origin", "http://localhost:8642.evil.example")],
            &[("origin", "http://localhost:8642@evil.example")],
            &[("origin", "http://localhost")],
            &[("origin", "localhost:8642")],
            &[("origin", "file://localhost:8642")],
            &[("origin", "null")],
            &[("origin", "")],
            &[same, ("origin", "http://evil.example")],
            &[cross, ("origin", "http://localhost:8642")],
            &[cross, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")],
        ] {
            assert_eq!(post(foreign), Err(Denied::ForeignWrite), "{foreign:?}");
        }
        let guard = Guard::new(&[], Some(TOKEN.to_owned()));
        let post = |headers: &[(&str, &str)]| {
            let all: Vec<_> = [host].iter().chain(headers).copied().collect();
            asked(&guard, "DELETE", &format!("/t/{TOKEN}/api/torrents/a"), &all, LOOPBACK).map(drop)
        };
        assert_eq!(post(&[]), Ok(()));
        assert_eq!(post(&[("origin", "http://evil.example")]), Err(Denied::ForeignWrite));
        assert_eq!(post(&[cross]), Err(Denied::ForeignWrite));
    }

    #[test]
    fn another_page_may_link_and_no_more() {
        let (host, cross) = (("host", "localhost"), ("sec-fetch-site", "cross-site"));
        let navigates = ("sec-fetch-mode", "navigate");
        assert!(get("/", &[host, cross, navigates, ("sec-fetch-dest", "document")]).is_ok());
        assert!(
            get(
                "/",
                &[host, ("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors")]
            )
            .is_ok()
        );
        assert!(get("/", &[host, ("sec-fetch-site", "none"), navigates]).is_ok());
        for foreign in [
            &[host, cross][..],
            &[host, cross, ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "video")],
            &[host, cross, navigates, ("sec-fetch-dest", "iframe")],
            &[host, ("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors")],
        ] {
            assert_eq!(get("/files/x", foreign), Err(Denied::ForeignPage), "{foreign:?}");
        }
    }
}
