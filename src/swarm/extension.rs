//! The payloads of the extension protocol: its handshake (BEP 10), metadata (BEP 9), peer exchange (BEP 11) and
//! `lt_donthave` (BEP 54). Pure.
//!
//! A message's number is chosen by who receives it: [`METADATA`], [`PEX`] and [`DONT_HAVE`] are the numbers by which
//! peers reach us, [`Features`] has theirs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, Bytes};
use thiserror::Error;

use super::bencode::{Value, put_bytes, put_integer};

/// The number of the extension handshake, on both sides.
pub const HANDSHAKE: u8 = 0;
/// Our number for peer exchange.
pub const PEX: u8 = 1;
/// Our number for metadata.
pub const METADATA: u8 = 2;
/// Our number for `lt_donthave`.
pub const DONT_HAVE: u8 = 3;
/// Bytes of one part of the metadata, but for the last.
pub const METADATA_PART: u32 = 16 * 1024;
/// The largest info dictionary that is fetched or served, in bytes.
pub const METADATA_LIMIT: u32 = 32 * 1024 * 1024;
/// The most peers, added and dropped together, that one peer exchange message may name: BEP 11 says 100, and lets the
/// first one be larger.
pub const PEX_LIMIT: usize = 200;
/// How much of a client's name for itself is kept, in characters.
const CLIENT_LIMIT: usize = 64;

/// What a peer sent in an extended message is not what the extension says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ExtensionError {
    /// The payload cannot be read.
    #[error("the peer's {0} message is malformed")]
    Malformed(&'static str),
    /// A peer exchange message names more than [`PEX_LIMIT`] peers.
    #[error("the peer exchange message names {0} peers")]
    TooManyPeers(usize),
}

/// What we say in our extension handshake.
#[derive(Debug, Clone, Default)]
pub struct Introduction {
    /// The port on which we listen.
    pub port: Option<u16>,
    /// The size of the info dictionary, if we have it to give.
    pub metadata_size: Option<u32>,
    /// How many requests we let the peer have open.
    pub request_limit: u32,
    /// We have all that we want.
    pub upload_only: bool,
    /// Whether we exchange peers: not for a private torrent.
    pub pex: bool,
    /// The address from which we see the peer.
    pub peer_address: Option<IpAddr>,
    /// Our name and version.
    pub client: String,
}

impl Introduction {
    /// Its payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        out.extend_from_slice(b"d1:md");
        put_integer("lt_donthave", u64::from(DONT_HAVE), &mut out);
        put_integer("ut_metadata", u64::from(METADATA), &mut out);
        if self.pex {
            put_integer("ut_pex", u64::from(PEX), &mut out);
        }
        out.push(b'e');
        if let Some(size) = self.metadata_size {
            put_integer("metadata_size", u64::from(size), &mut out);
        }
        if let Some(port) = self.port {
            put_integer("p", u64::from(port), &mut out);
        }
        put_integer("reqq", u64::from(self.request_limit), &mut out);
        if self.upload_only {
            put_integer("upload_only", 1, &mut out);
        }
        put_bytes(b"v", &mut out);
        put_bytes(self.client.as_bytes(), &mut out);
        if let Some(address) = self.peer_address {
            put_bytes(b"yourip", &mut out);
            match address.to_canonical() {
                IpAddr::V4(address) => put_bytes(&address.octets(), &mut out),
                IpAddr::V6(address) => put_bytes(&address.octets(), &mut out),
            }
        }
        out.push(b'e');
        out
    }
}

/// What a peer said in its extension handshakes: a later one changes what it names and leaves the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features {
    /// Its number for metadata.
    pub metadata: Option<u8>,
    /// Its number for peer exchange.
    pub pex: Option<u8>,
    /// Its number for `lt_donthave`.
    pub dont_have: Option<u8>,
    /// The size of the info dictionary that it offers, within [`METADATA_LIMIT`] and not 0.
    pub metadata_size: Option<u32>,
    /// Its name for itself, without control characters, at most 64 characters.
    pub client: Option<String>,
    /// The port on which it listens.
    pub port: Option<u16>,
    /// How many requests it lets us have open.
    pub request_limit: Option<u32>,
    /// It has all that it wants.
    pub upload_only: bool,
    /// The address from which it sees us.
    pub our_address: Option<IpAddr>,
}

impl Features {
    /// Takes in the payload of an extension handshake. A value of an unexpected type is as if it were not there.
    ///
    /// # Errors
    ///
    /// [`ExtensionError::Malformed`] if it is not a dictionary.
    pub fn update(&mut self, payload: &[u8]) -> Result<(), ExtensionError> {
        let (dictionary, _) = Value::split(payload)
            .filter(|(value, _)| value.is_dictionary())
            .ok_or(ExtensionError::Malformed("extension handshake"))?;
        for (key, value) in dictionary.entries() {
            match key {
                b"m" => self.update_numbers(value),
                b"metadata_size" => self.metadata_size = within(value, 1, METADATA_LIMIT),
                b"p" => self.port = within(value, 1, u16::MAX),
                b"reqq" => self.request_limit = within(value, 1, u32::MAX),
                b"upload_only" => self.upload_only = value.integer() == Some(1),
                b"v" => self.client = value.bytes().map(client_name),
                b"yourip" => self.our_address = value.bytes().and_then(address),
                _ => {}
            }
        }
        Ok(())
    }

    fn update_numbers(&mut self, dictionary: Value<'_>) {
        for (name, value) in dictionary.entries() {
            // 0 takes the extension back.
            let number = within(value, 1, u8::MAX);
            match name {
                b"ut_metadata" => self.metadata = number,
                b"ut_pex" => self.pex = number,
                b"lt_donthave" => self.dont_have = number,
                _ => {}
            }
        }
    }
}

fn within<T: TryFrom<i64> + PartialOrd>(value: Value<'_>, least: T, most: T) -> Option<T> {
    let number = T::try_from(value.integer()?).ok()?;
    (number >= least && number <= most).then_some(number)
}

fn client_name(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * CLIENT_LIMIT)]);
    text.chars()
        .filter(|character| !character.is_control())
        .take(CLIENT_LIMIT)
        .collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes)
            .ok()
            .map(|octets| IpAddr::V4(Ipv4Addr::from(octets))),
        16 => <[u8; 16]>::try_from(bytes)
            .ok()
            .map(|octets| IpAddr::V6(Ipv6Addr::from(octets))),
        _ => None,
    }
}

/// A message of BEP 9.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Metadata {
    /// Send me this part.
    Request(u32),
    /// A part. Its length and number fit `total`.
    Data {
        /// Which.
        part: u32,
        /// The size of the whole info dictionary.
        total: u32,
        /// The part's bytes.
        data: Bytes,
    },
    /// You do not get this part.
    Reject(u32),
    /// A message of a kind that is not known, which BEP 9 says to ignore.
    Unknown,
}

impl Metadata {
    /// Reads a payload.
    ///
    /// # Errors
    ///
    /// [`ExtensionError::Malformed`].
    pub fn parse(mut payload: Bytes) -> Result<Self, ExtensionError> {
        const MALFORMED: ExtensionError = ExtensionError::Malformed("metadata");
        let (dictionary, rest) = Value::split(&payload).ok_or(MALFORMED)?;
        let (mut kind, mut part, mut total) = (None, None, None);
        for (key, value) in dictionary.entries() {
            match key {
                b"msg_type" => kind = value.integer(),
                b"piece" => part = within(value, 0, METADATA_LIMIT / METADATA_PART),
                b"total_size" => total = within(value, 1, METADATA_LIMIT),
                _ => {}
            }
        }
        let head = payload.len() - rest.len();
        match kind.ok_or(MALFORMED)? {
            0 => Ok(Self::Request(part.ok_or(MALFORMED)?)),
            1 => {
                let (part, total) = (part.ok_or(MALFORMED)?, total.ok_or(MALFORMED)?);
                payload.advance(head);
                if part_length(part, total).map(|length| length as usize) != Some(payload.len()) {
                    return Err(MALFORMED);
                }
                Ok(Self::Data {
                    part,
                    total,
                    data: payload,
                })
            }
            2 => Ok(Self::Reject(part.ok_or(MALFORMED)?)),
            _ => Ok(Self::Unknown),
        }
    }

    /// Its payload; nothing for [`Metadata::Unknown`].
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        let (kind, part) = match self {
            Self::Request(part) => (0, *part),
            Self::Data { part, .. } => (1, *part),
            Self::Reject(part) => (2, *part),
            Self::Unknown => return out,
        };
        out.push(b'd');
        put_integer("msg_type", kind, &mut out);
        put_integer("piece", u64::from(part), &mut out);
        if let Self::Data { total, .. } = self {
            put_integer("total_size", u64::from(*total), &mut out);
        }
        out.push(b'e');
        if let Self::Data { data, .. } = self {
            out.extend_from_slice(data);
        }
        out
    }
}

/// How many parts an info dictionary of `total` bytes has.
pub fn part_count(total: u32) -> u32 {
    total.div_ceil(METADATA_PART)
}

/// How many bytes this part has; `None` if there is no such part.
pub fn part_length(part: u32, total: u32) -> Option<u32> {
    let begin = part.checked_mul(METADATA_PART)?;
    (begin < total).then(|| (total - begin).min(METADATA_PART))
}

/// What a peer says of a peer that it has met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetPeer {
    /// Where it listens.
    pub address: SocketAddr,
    /// BEP 11's flags: 1 prefers encryption, 2 is a seed, 4 speaks uTP, 8 knows hole punching, 16 is reachable.
    pub flags: u8,
}

/// A message of BEP 11.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerExchange {
    /// Peers met since the last one.
    pub added: Vec<MetPeer>,
    /// Peers left since the last one.
    pub dropped: Vec<SocketAddr>,
}

impl PeerExchange {
    /// Reads a payload. Addresses with port 0 are left out.
    ///
    /// # Errors
    ///
    /// [`ExtensionError`].
    pub fn parse(payload: &[u8]) -> Result<Self, ExtensionError> {
        let (dictionary, _) = Value::split(payload)
            .filter(|(value, _)| value.is_dictionary())
            .ok_or(ExtensionError::Malformed("peer exchange"))?;
        let (mut added, mut added_flags, mut dropped) = ([&[][..]; 2], [&[][..]; 2], [&[][..]; 2]);
        for (key, value) in dictionary.entries() {
            let Some(bytes) = value.bytes() else { continue };
            match key {
                b"added" => added[0] = bytes,
                b"added.f" => added_flags[0] = bytes,
                b"added6" => added[1] = bytes,
                b"added6.f" => added_flags[1] = bytes,
                b"dropped" => dropped[0] = bytes,
                b"dropped6" => dropped[1] = bytes,
                _ => {}
            }
        }
        let count = (added[0].len() + dropped[0].len()) / V4_LENGTH + (added[1].len() + dropped[1].len()) / V6_LENGTH;
        if count > PEX_LIMIT {
            return Err(ExtensionError::TooManyPeers(count));
        }
        let flagged = |addresses: Vec<SocketAddr>, flags: &[u8]| -> Vec<MetPeer> {
            let with_flags = |(index, address)| MetPeer {
                address,
                flags: flags.get(index).copied().unwrap_or(0),
            };
            addresses.into_iter().enumerate().map(with_flags).collect()
        };
        let mut exchange = Self {
            added: flagged(compact_v4(added[0])?, added_flags[0]),
            dropped: compact_v4(dropped[0])?,
        };
        exchange.added.extend(flagged(compact_v6(added[1])?, added_flags[1]));
        exchange.dropped.extend(compact_v6(dropped[1])?);
        exchange.added.retain(|peer| peer.address.port() != 0);
        exchange.dropped.retain(|address| address.port() != 0);
        Ok(exchange)
    }

    /// Its payload. The caller keeps to BEP 11's limit of 50 added and 50 dropped.
    pub fn encode(&self) -> Vec<u8> {
        let mut fields: [Vec<u8>; 6] = Default::default();
        for peer in &self.added {
            let (list, flags) = if peer.address.is_ipv4() { (0, 1) } else { (2, 3) };
            put_compact(peer.address, &mut fields[list]);
            fields[flags].push(peer.flags);
        }
        for address in &self.dropped {
            put_compact(*address, &mut fields[if address.is_ipv4() { 4 } else { 5 }]);
        }
        let mut out = vec![b'd'];
        for (name, bytes) in ["added", "added.f", "added6", "added6.f", "dropped", "dropped6"]
            .iter()
            .zip(&fields)
        {
            put_bytes(name.as_bytes(), &mut out);
            put_bytes(bytes, &mut out);
        }
        out.push(b'e');
        out
    }
}

const V4_LENGTH: usize = 6;
const V6_LENGTH: usize = 18;

fn compact_v4(bytes: &[u8]) -> Result<Vec<SocketAddr>, ExtensionError> {
    let (entries, []) = bytes.as_chunks::<V4_LENGTH>() else {
        return Err(ExtensionError::Malformed("peer exchange"));
    };
    let socket = |&[a, b, c, d, high, low]: &[u8; V4_LENGTH]| {
        SocketAddr::from((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])))
    };
    Ok(entries.iter().map(socket).collect())
}

fn compact_v6(bytes: &[u8]) -> Result<Vec<SocketAddr>, ExtensionError> {
    let (entries, []) = bytes.as_chunks::<V6_LENGTH>() else {
        return Err(ExtensionError::Malformed("peer exchange"));
    };
    let socket = |entry: &[u8; V6_LENGTH]| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&entry[..16]);
        SocketAddr::from((Ipv6Addr::from(octets), u16::from_be_bytes([entry[16], entry[17]])))
    };
    Ok(entries.iter().map(socket).collect())
}

fn put_compact(address: SocketAddr, out: &mut Vec<u8>) {
    match address.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

/// Reads the payload of `lt_donthave`: the piece that the peer no longer has.
///
/// # Errors
///
/// [`ExtensionError::Malformed`].
pub fn parse_dont_have(payload: &[u8]) -> Result<u32, ExtensionError> {
    payload
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| ExtensionError::Malformed("lt_donthave"))
}

#[cfg(test)]
#[path = "extension_tests.rs"]
mod tests;
