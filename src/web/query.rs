//! What stands behind the question mark of an address, and in a form: names and values, decoded. Not their meaning.

/// Reads `a=1&b=x%20y`. What is no UTF-8 after decoding is left out.
pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    let parts = text.split('&').filter(|part| !part.is_empty());
    parts
        .filter_map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Some((decoded(name)?, decoded(value)?))
        })
        .collect()
}

/// `%41+b` → `A b`; a `%` that no two hexadecimal digits follow stays what it is.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digit = |at: usize| tail.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        (rest, _) = match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => (&tail[2..], bytes.push((high * 16 + low) as u8)),
            (b'+', ..) => (tail, bytes.push(b' ')),
            (byte, ..) => (tail, bytes.push(*byte)),
        };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_decoded_and_nonsense_does_no_harm() {
        let read =
            |text: &str| pairs(text).into_iter().map(|(name, value)| format!("{name}:{value}")).collect::<Vec<_>>();
        assert_eq!(read("a=1&b=x%20y+z&c&=&d=%3d=%"), ["a:1", "b:x y z", "c:", ":", "d:==%"]);
        assert_eq!(read("a=%ff&b=%4&c=%zz"), ["b:%4", "c:%zz"]);
        assert_eq!(read(""), [""; 0]);
    }
}
