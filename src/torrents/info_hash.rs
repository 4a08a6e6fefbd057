//! The name of a torrent.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The SHA-1 of a torrent's info dictionary. Shown, parsed and stored as 40 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InfoHash(pub [u8; 20]);

/// The text is not 40 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an info hash has 40 hex digits")]
pub struct NotAnInfoHash;

impl InfoHash {
    /// The first four bytes as hex: enough to tell torrents of one name apart.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }
}

impl fmt::Display for InfoHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for InfoHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for InfoHash {
    type Err = NotAnInfoHash;

    fn from_str(text: &str) -> Result<InfoHash, NotAnInfoHash> {
        let mut bytes = [0; 20];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NotAnInfoHash)?;
        Ok(InfoHash(bytes))
    }
}

impl TryFrom<String> for InfoHash {
    type Error = NotAnInfoHash;

    fn try_from(text: String) -> Result<InfoHash, NotAnInfoHash> {
        text.parse()
    }
}

impl From<InfoHash> for String {
    fn from(hash: InfoHash) -> String {
        hash.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_40_hex_digits_everywhere() {
        let text = "0123456789abcdef0123456789abcdef01234567";
        let hash: InfoHash = text.to_uppercase().parse().unwrap();
        assert_eq!(hash.to_string(), text);
        assert_eq!(hash.short(), "01234567");
        assert_eq!(serde_json::to_string(&hash).unwrap(), format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<InfoHash>(&format!("\"{text}\"")).unwrap(), hash);
        for wrong in [
            "",
            "01",
            &text[1..],
            &format!("{text}0"),
            &text.replace('0', "g"),
            &text.replace('0', "é"),
        ] {
            assert!(wrong.parse::<InfoHash>().is_err(), "{wrong}");
        }
    }
}
