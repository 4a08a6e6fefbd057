use super::*;

#[test]
fn last_words_are_the_end_in_whole_lines() {
    let mut words = LastWords::default();
    assert_eq!(words.text(), "");
    words.hear(b"one\x1b[31m\n\xff two\n");
    assert_eq!(words.text(), "one [31m\n\u{fffd} two");
    for number in 0..10_000 {
        words.hear(format!("line {number}\n").as_bytes());
        assert!(words.bytes.len() <= LAST_WORDS);
    }
    let text = words.text();
    assert!(text.starts_with("line ") && text.ends_with("line 9999") && text.len() <= LAST_WORDS);
    words.hear(&[b'x'; 3 * LAST_WORDS]);
    assert_eq!(words.text(), "x".repeat(LAST_WORDS));
}
