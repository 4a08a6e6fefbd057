//! Reading bencode in place: nothing is copied, numbers do not overflow, and nesting costs no stack.

/// One value; lists and dictionaries are walked by [`Items`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Integer(i64),
    Bytes(&'a [u8]),
    List(Items<'a>),
    Dict(Items<'a>),
}

impl<'a> Value<'a> {
    /// The value that `bytes` begin with.
    pub(super) fn first(bytes: &'a [u8]) -> Option<Self> {
        Items { rest: bytes }.next()
    }

    pub(super) fn integer(self) -> Option<i64> {
        match self {
            Value::Integer(integer) => Some(integer),
            _ => None,
        }
    }

    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// The values of a list, or keys and values of a dictionary in turn; ends at the first thing that is not bencode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Items<'a> {
    /// Keys and values; ends at the first key that is not a string.
    pub(super) fn pairs(mut self) -> impl Iterator<Item = (&'a [u8], Value<'a>)> {
        std::iter::from_fn(move || Some((self.next()?.bytes()?, self.next()?)))
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let colon = self.rest.iter().take(20).position(|byte| *byte == b':')?;
        let length: usize = digits(&self.rest[..colon])?;
        let (string, rest) = self.rest[colon + 1..].split_at_checked(length)?;
        self.rest = rest;
        Some(string)
    }

    fn integer(&mut self) -> Option<i64> {
        let body = self.rest.strip_prefix(b"i")?;
        let end = body.iter().take(21).position(|byte| *byte == b'e')?;
        self.rest = &body[end + 1..];
        match body[..end].strip_prefix(b"-") {
            Some(body) => digits::<i64>(body).map(|value| -value),
            None => digits(&body[..end]),
        }
    }

    /// What is between the first byte and the `e` that closes it.
    fn container(&mut self) -> Option<Items<'a>> {
        let start = &self.rest[1..];
        let mut walk = Items { rest: start };
        let mut depth = 1_usize;
        while depth > 0 {
            match walk.rest.first()? {
                b'i' => {
                    walk.integer()?;
                }
                b'0'..=b'9' => {
                    walk.string()?;
                }
                b'l' | b'd' => {
                    depth += 1;
                    walk.rest = &walk.rest[1..];
                }
                b'e' => {
                    depth -= 1;
                    walk.rest = &walk.rest[1..];
                }
                _ => return None,
            }
        }
        let length = start.len() - walk.rest.len() - 1;
        self.rest = walk.rest;
        Some(Items { rest: &start[..length] })
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        match self.rest.first()? {
            b'i' => self.integer().map(Value::Integer),
            b'0'..=b'9' => self.string().map(Value::Bytes),
            b'l' => self.container().map(Value::List),
            b'd' => self.container().map(Value::Dict),
            _ => None,
        }
    }
}

fn digits<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(bytes).ok()?;
    // `parse` would take a sign.
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}
