//! The messages that two peers exchange, and their bytes: BEP 3 and the fast extension (BEP 6). Pure.
//!
//! Whatever a peer sends is either a [`Message`] or a [`WireError`]; no length that it claims is believed further than
//! the limits below. Whether a message makes sense (a piece that exists, a block that was asked for) is the business
//! of the connection ([`super::peer`]).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Bytes of a handshake.
pub const HANDSHAKE_LENGTH: usize = 68;
/// Bytes of a handshake up to and with the info hash: as much as names the torrent.
pub const GREETING_LENGTH: usize = 48;
/// The most that one message may carry, but for extended ones: a bitfield of a million pieces, or the largest block
/// that any client sends.
pub const MESSAGE_LIMIT: usize = 128 * 1024 + 9;
/// The most that one extended message may carry.
pub const EXTENDED_LIMIT: usize = 1024 * 1024;
/// Bytes of a block message before its data.
pub const BLOCK_HEADER_LENGTH: usize = 13;

const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";
const LENGTH_PREFIX: usize = 4;

/// What a peer sent is not the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// The first bytes are those of another protocol, or encrypted.
    #[error("the peer does not speak BitTorrent in the clear")]
    OtherProtocol,
    /// A message is larger than any that is allowed.
    #[error("message {id} claims {length} bytes")]
    TooLong {
        /// The message's number.
        id: u8,
        /// What it claims to be long, its number included.
        length: usize,
    },
    /// A message has not the length that its kind has.
    #[error("message {id} has the wrong length of {length} bytes")]
    WrongLength {
        /// The message's number.
        id: u8,
        /// Its length, its number included.
        length: usize,
    },
}

/// The eight bytes in which a peer says what it knows beyond BEP 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reserved(pub [u8; 8]);

impl Reserved {
    /// What we say of ourselves: the extension protocol and the fast extension, and the DHT if we run a node.
    pub fn ours(dht: bool) -> Self {
        Self([0, 0, 0, 0, 0, 0x10, 0, 0x04 | u8::from(dht)])
    }

    /// The extension protocol, BEP 10.
    pub fn extension(self) -> bool {
        self.0[5] & 0x10 != 0
    }

    /// The fast extension, BEP 6.
    pub fn fast(self) -> bool {
        self.0[7] & 0x04 != 0
    }

    /// It runs a node of the DHT, BEP 5.
    pub fn dht(self) -> bool {
        self.0[7] & 0x01 != 0
    }
}

/// How a connection begins, both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshake {
    /// What the sender knows.
    pub reserved: Reserved,
    /// The torrent.
    pub info_hash: [u8; 20],
    /// The sender's name for itself.
    pub peer_id: [u8; 20],
}

impl Handshake {
    /// Its bytes.
    pub fn encode(&self) -> [u8; HANDSHAKE_LENGTH] {
        let mut bytes = [0; HANDSHAKE_LENGTH];
        bytes[..20].copy_from_slice(PROTOCOL);
        bytes[20..28].copy_from_slice(&self.reserved.0);
        bytes[28..48].copy_from_slice(&self.info_hash);
        bytes[48..].copy_from_slice(&self.peer_id);
        bytes
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// [`WireError::OtherProtocol`].
    pub fn parse(bytes: &[u8; HANDSHAKE_LENGTH]) -> Result<Self, WireError> {
        let (greeting, id) = bytes.split_at(GREETING_LENGTH);
        let mut peer_id = [0; 20];
        peer_id.copy_from_slice(id);
        let (reserved, info_hash) = Self::parse_greeting(greeting)?;
        Ok(Self {
            reserved,
            info_hash,
            peer_id,
        })
    }

    /// Reads what comes before the peer's name: enough to know the torrent.
    ///
    /// # Errors
    ///
    /// [`WireError::OtherProtocol`], also for fewer than [`GREETING_LENGTH`] bytes.
    pub fn parse_greeting(bytes: &[u8]) -> Result<(Reserved, [u8; 20]), WireError> {
        let bytes = bytes.strip_prefix(PROTOCOL).ok_or(WireError::OtherProtocol)?;
        let (reserved, rest) = bytes.split_first_chunk().ok_or(WireError::OtherProtocol)?;
        let info_hash = rest.first_chunk().ok_or(WireError::OtherProtocol)?;
        Ok((Reserved(*reserved), *info_hash))
    }
}

/// Some bytes of one piece: what is asked for, cancelled, or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The piece.
    pub piece: u32,
    /// Where in the piece it begins.
    pub begin: u32,
    /// How many bytes.
    pub length: u32,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the protocol's own")]
pub enum Message {
    KeepAlive,
    Choke,
    Unchoke,
    Interested,
    NotInterested,
    Have(u32),
    Bitfield(Bytes),
    Request(Span),
    /// A block. The bytes are a view of the buffer that they were read into.
    Block {
        piece: u32,
        begin: u32,
        data: Bytes,
    },
    Cancel(Span),
    /// The port of the sender's DHT node.
    Port(u16),
    Suggest(u32),
    HaveAll,
    HaveNone,
    Reject(Span),
    AllowedFast(u32),
    /// A message of the extension protocol: what is inside is for [`super::extension`].
    Extended {
        id: u8,
        payload: Bytes,
    },
    /// A message of a protocol that we do not know; its payload is passed over.
    Unknown(u8),
}

mod id {
    pub(super) const CHOKE: u8 = 0;
    pub(super) const UNCHOKE: u8 = 1;
    pub(super) const INTERESTED: u8 = 2;
    pub(super) const NOT_INTERESTED: u8 = 3;
    pub(super) const HAVE: u8 = 4;
    pub(super) const BITFIELD: u8 = 5;
    pub(super) const REQUEST: u8 = 6;
    pub(super) const BLOCK: u8 = 7;
    pub(super) const CANCEL: u8 = 8;
    pub(super) const PORT: u8 = 9;
    pub(super) const SUGGEST: u8 = 13;
    pub(super) const HAVE_ALL: u8 = 14;
    pub(super) const HAVE_NONE: u8 = 15;
    pub(super) const REJECT: u8 = 16;
    pub(super) const ALLOWED_FAST: u8 = 17;
    pub(super) const EXTENDED: u8 = 20;
}

/// Takes the next message off the front of `buffer`; `None` if it is not yet there as a whole. Bytes of a message that
/// is refused stay in the buffer: the connection is at its end.
///
/// # Errors
///
/// [`WireError`] as soon as the first five bytes or the whole message show it.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Message>, WireError> {
    let Some(length) = length_of(buffer) else {
        return Ok(None);
    };
    if length == 0 {
        buffer.advance(LENGTH_PREFIX);
        return Ok(Some(Message::KeepAlive));
    }
    let Some(&id) = buffer.get(LENGTH_PREFIX) else {
        return Ok(None);
    };
    check_length(id, length)?;
    if buffer.len() < LENGTH_PREFIX + length {
        return Ok(None);
    }
    buffer.advance(LENGTH_PREFIX + 1);
    let mut body = || buffer.split_to(length - 1).freeze();
    Ok(Some(match id {
        id::CHOKE => Message::Choke,
        id::UNCHOKE => Message::Unchoke,
        id::INTERESTED => Message::Interested,
        id::NOT_INTERESTED => Message::NotInterested,
        id::HAVE => Message::Have(buffer.get_u32()),
        id::BITFIELD => Message::Bitfield(body()),
        id::REQUEST => Message::Request(span(buffer)),
        id::BLOCK => {
            let mut data = body();
            Message::Block {
                piece: data.get_u32(),
                begin: data.get_u32(),
                data,
            }
        }
        id::CANCEL => Message::Cancel(span(buffer)),
        id::PORT => Message::Port(buffer.get_u16()),
        id::SUGGEST => Message::Suggest(buffer.get_u32()),
        id::HAVE_ALL => Message::HaveAll,
        id::HAVE_NONE => Message::HaveNone,
        id::REJECT => Message::Reject(span(buffer)),
        id::ALLOWED_FAST => Message::AllowedFast(buffer.get_u32()),
        id::EXTENDED => {
            let mut payload = body();
            Message::Extended {
                id: payload.get_u8(),
                payload,
            }
        }
        other => {
            buffer.advance(length - 1);
            Message::Unknown(other)
        }
    }))
}

/// How many bytes are still missing of the message at the front of `buffer`, as far as it tells its length. 0 when the
/// buffer is empty or has the whole of it; never more than the limits.
pub fn missing(buffer: &[u8]) -> usize {
    match length_of(buffer) {
        Some(length) => (LENGTH_PREFIX + length.min(EXTENDED_LIMIT)).saturating_sub(buffer.len()),
        None => 0,
    }
}

fn length_of(buffer: &[u8]) -> Option<usize> {
    buffer.first_chunk().map(|prefix| u32::from_be_bytes(*prefix) as usize)
}

/// The lengths are those with the message's number.
fn check_length(id: u8, length: usize) -> Result<(), WireError> {
    let limit = if id == id::EXTENDED {
        EXTENDED_LIMIT
    } else {
        MESSAGE_LIMIT
    };
    if length > limit {
        return Err(WireError::TooLong { id, length });
    }
    let right = match id {
        id::CHOKE | id::UNCHOKE | id::INTERESTED | id::NOT_INTERESTED | id::HAVE_ALL | id::HAVE_NONE => length == 1,
        id::HAVE | id::SUGGEST | id::ALLOWED_FAST => length == 5,
        id::REQUEST | id::CANCEL | id::REJECT => length == 13,
        id::PORT => length == 3,
        id::BLOCK => length >= 9,
        id::EXTENDED => length >= 2,
        _ => true,
    };
    if right {
        Ok(())
    } else {
        Err(WireError::WrongLength { id, length })
    }
}

fn span(buffer: &mut BytesMut) -> Span {
    Span {
        piece: buffer.get_u32(),
        begin: buffer.get_u32(),
        length: buffer.get_u32(),
    }
}

/// Appends the bytes of a message. [`Message::Unknown`] has none.
pub fn encode(message: &Message, out: &mut BytesMut) {
    match message {
        Message::KeepAlive => out.put_u32(0),
        Message::Choke => bare(id::CHOKE, out),
        Message::Unchoke => bare(id::UNCHOKE, out),
        Message::Interested => bare(id::INTERESTED, out),
        Message::NotInterested => bare(id::NOT_INTERESTED, out),
        Message::Have(piece) => number(id::HAVE, *piece, out),
        Message::Bitfield(bits) => {
            head(id::BITFIELD, bits.len(), out);
            out.put_slice(bits);
        }
        Message::Request(span) => three(id::REQUEST, *span, out),
        Message::Block { piece, begin, data } => {
            out.put_slice(&block_header(*piece, *begin, data.len()));
            out.put_slice(data);
        }
        Message::Cancel(span) => three(id::CANCEL, *span, out),
        Message::Port(port) => {
            head(id::PORT, 2, out);
            out.put_u16(*port);
        }
        Message::Suggest(piece) => number(id::SUGGEST, *piece, out),
        Message::HaveAll => bare(id::HAVE_ALL, out),
        Message::HaveNone => bare(id::HAVE_NONE, out),
        Message::Reject(span) => three(id::REJECT, *span, out),
        Message::AllowedFast(piece) => number(id::ALLOWED_FAST, *piece, out),
        Message::Extended { id, payload } => {
            head(id::EXTENDED, payload.len() + 1, out);
            out.put_u8(*id);
            out.put_slice(payload);
        }
        Message::Unknown(_) => {}
    }
}

/// The bytes of a block message before its data, for a writer that sends the data from where it lies.
pub fn block_header(piece: u32, begin: u32, length: usize) -> [u8; BLOCK_HEADER_LENGTH] {
    let mut header = [0; BLOCK_HEADER_LENGTH];
    header[..4].copy_from_slice(&wire_length(length + 9).to_be_bytes());
    header[4] = id::BLOCK;
    header[5..9].copy_from_slice(&piece.to_be_bytes());
    header[9..].copy_from_slice(&begin.to_be_bytes());
    header
}

/// Nothing that we send comes near the limits of the length field.
fn wire_length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn head(id: u8, body: usize, out: &mut BytesMut) {
    out.put_u32(wire_length(body + 1));
    out.put_u8(id);
}

fn bare(id: u8, out: &mut BytesMut) {
    head(id, 0, out);
}

fn number(id: u8, value: u32, out: &mut BytesMut) {
    head(id, 4, out);
    out.put_u32(value);
}

fn three(id: u8, span: Span, out: &mut BytesMut) {
    head(id, 12, out);
    out.put_u32(span.piece);
    out.put_u32(span.begin);
    out.put_u32(span.length);
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
