//! Torrents for tests.

use sha1::{Digest, Sha1};

/// A bencode value.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Number(i64),
    Text(Vec<u8>),
    List(Vec<Value>),
    Dictionary(Vec<(&'static str, Value)>),
    /// Written as it is.
    Raw(Vec<u8>),
}

pub(crate) fn text(text: impl AsRef<[u8]>) -> Value {
    Value::Text(text.as_ref().to_owned())
}

pub(crate) fn list<T: AsRef<[u8]>>(texts: &[T]) -> Value {
    Value::List(texts.iter().map(text).collect())
}

impl Value {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Number(number) => out.extend_from_slice(format!("i{number}e").as_bytes()),
            Value::Text(text) => {
                out.extend_from_slice(format!("{}:", text.len()).as_bytes());
                out.extend_from_slice(text);
            }
            Value::List(values) => {
                out.push(b'l');
                values.iter().for_each(|value| value.write(out));
                out.push(b'e');
            }
            Value::Dictionary(fields) => {
                out.push(b'd');
                for (key, value) in fields {
                    text(key).write(out);
                    value.write(out);
                }
                out.push(b'e');
            }
            Value::Raw(bytes) => out.extend_from_slice(bytes),
        }
    }

    /// Sets or adds a field of a dictionary.
    pub(crate) fn with(mut self, key: &'static str, value: Value) -> Value {
        let Value::Dictionary(fields) = &mut self else {
            panic!("not a dictionary")
        };
        fields.retain(|(known, _)| *known != key);
        fields.push((key, value));
        self
    }

    pub(crate) fn without(mut self, key: &str) -> Value {
        let Value::Dictionary(fields) = &mut self else {
            panic!("not a dictionary")
        };
        fields.retain(|(known, _)| *known != key);
        self
    }
}

/// One entry of `files`.
pub(crate) fn file<T: AsRef<[u8]>>(path: &[T], length: u64) -> Value {
    Value::Dictionary(vec![("length", Value::Number(length as i64)), ("path", list(path))])
}

/// The info dictionary of one file.
pub(crate) fn single(name: &str, length: u64, piece_length: u32) -> Value {
    info(name, length, piece_length).with("length", Value::Number(length as i64))
}

/// The info dictionary of a folder of files, each given as a path with slashes and a size.
pub(crate) fn several(name: &str, files: &[(&str, u64)], piece_length: u32) -> Value {
    let entries = files
        .iter()
        .map(|(path, length)| file(&path.split('/').collect::<Vec<_>>(), *length));
    let total = files.iter().map(|(_, length)| length).sum();
    info(name, total, piece_length).with("files", Value::List(entries.collect()))
}

/// An info dictionary without files. Its hashes are of nothing.
pub(crate) fn info(name: &str, total: u64, piece_length: u32) -> Value {
    Value::Dictionary(vec![
        ("name", text(name)),
        ("piece length", Value::Number(piece_length.into())),
        ("pieces", pieces(total.div_ceil(piece_length.into()))),
    ])
}

pub(crate) fn pieces(count: u64) -> Value {
    Value::Text(vec![7; count as usize * 20])
}

/// The .torrent around an info dictionary.
pub(crate) fn torrent(info: &Value) -> Vec<u8> {
    outer(info).bytes()
}

pub(crate) fn outer(info: &Value) -> Value {
    Value::Dictionary(vec![
        ("announce", text("http://tracker.invalid/announce")),
        ("info", info.clone()),
    ])
}

pub(crate) fn info_hash(info: &Value) -> super::InfoHash {
    super::InfoHash(Sha1::digest(info.bytes()).into())
}
