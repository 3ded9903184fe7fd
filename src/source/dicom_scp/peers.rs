//! Who may send: AE titles, each with the address or network that it may come from. Asks no resolver.

use std::fmt;
use std::net::IpAddr;

/// Longest AE title.
const MAX_TITLE: usize = 16;

/// One entry of `allowed_peers`: `TITLE@NETWORK`, where either may be `*`, or `*` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Peer {
    /// `None`: any.
    title: Option<String>,
    /// `None`: any.
    network: Option<Network>,
}

/// An address and how many of its first bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

/// All entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peers(Vec<Peer>);

impl Peers {
    /// Reads the entries, or says what is wrong with which.
    pub(super) fn parse(entries: &[String]) -> Result<Self, String> {
        if entries.is_empty() {
            return Err(
                "source.dicom.allowed_peers: write who may send, such as [\"MODALITY@10.0.0.0/8\"] (AE title, @, \
                        address or network), or [\"*\"] for anybody"
                    .into(),
            );
        }
        entries.iter().map(|entry| peer(entry)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether any title at all may come from this address.
    pub(super) fn know_address(&self, address: IpAddr) -> bool {
        self.0.iter().any(|peer| peer.is_from(address))
    }

    /// Whether this title may come from this address.
    pub(super) fn allow(&self, title: &str, address: IpAddr) -> bool {
        self.0.iter().any(|peer| peer.is_from(address) && peer.title.as_deref().is_none_or(|own| own == title))
    }

    /// Whether any entry lets in who is anywhere.
    pub(super) fn is_open(&self) -> bool {
        self.0.iter().any(|peer| peer.network.is_none_or(|network| network.bits == 0))
    }
}

impl Peer {
    fn is_from(&self, address: IpAddr) -> bool {
        self.network.is_none_or(|network| network.holds(address))
    }
}

impl Network {
    fn holds(&self, address: IpAddr) -> bool {
        // An IPv4 peer of a socket that listens to both has an IPv6 address that holds its own.
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                same_start(u128::from(own.to_bits()) << 96, u128::from(other.to_bits()) << 96, self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => same_start(own.to_bits(), other.to_bits(), self.bits),
            _ => false,
        }
    }
}

fn same_start(a: u128, b: u128, bits: u8) -> bool {
    bits == 0 || (a ^ b) >> (128 - u32::from(bits)) == 0
}

fn peer(entry: &str) -> Result<Peer, String> {
    let wrong = |problem: &dyn fmt::Display| format!("source.dicom.allowed_peers: {entry:?}: {problem}");
    if entry == "*" {
        return Ok(Peer { title: None, network: None });
    }
    let (title, place) = entry
        .split_once('@')
        .ok_or_else(|| wrong(&"write TITLE@ADDRESS, such as MODALITY@10.0.0.5 or MODALITY@10.0.0.0/8"))?;
    let title = match title {
        "*" => None,
        title => {
            check_title(title).map_err(|problem| wrong(&problem))?;
            Some(title.to_owned())
        }
    };
    let network = match place {
        "*" => None,
        place => Some(network(place).map_err(|problem| wrong(&problem))?),
    };
    Ok(Peer { title, network })
}

fn network(place: &str) -> Result<Network, &'static str> {
    let (address, bits) = match place.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (place, None),
    };
    let address: IpAddr = address
        .parse()
        .map_err(|_| "after @ write an address or a network, such as 10.0.0.5 or 10.0.0.0/8; no host name")?;
    let all: u8 = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => all,
        Some(bits) => bits
            .parse()
            .ok()
            .filter(|bits| *bits <= all)
            .ok_or("after / write how many bits of the address count, at most 32 (IPv6: 128)")?,
    };
    // An IPv4 address in the clothes of IPv6 is the IPv4 address that its peer has.
    match (address.to_canonical(), bits.checked_sub(96)) {
        (address @ IpAddr::V4(_), Some(bits)) if all == 128 => Ok(Network { address, bits }),
        _ => Ok(Network { address, bits }),
    }
}

/// Checks an AE title as the standard has it, without the spaces around it that mean nothing.
pub(super) fn check_title(title: &str) -> Result<(), &'static str> {
    let is_plain = title.chars().all(|letter| (' '..='~').contains(&letter) && letter != '\\');
    if title.is_empty() || title.len() > MAX_TITLE || !is_plain || title.trim() != title {
        return Err("an AE title has 1 to 16 letters, digits or signs of ASCII without \\");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(entries: &[&str], title: &str, address: &str) -> bool {
        let entries: Vec<_> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        let peers = Peers::parse(&entries).unwrap();
        let address = address.parse().unwrap();
        assert!(!peers.allow(title, address) || peers.know_address(address));
        peers.allow(title, address)
    }

    #[test]
    fn title_and_address_must_be_of_one_entry() {
        let entries = ["CR1@10.1.0.0/16", "PACS@10.2.0.9", "V6@fd00::/8", "*@127.0.0.1"];
        for (title, address, is_allowed) in [
            ("CR1", "10.1.2.3", true),
            ("CR1", "10.2.0.9", false),
            ("PACS", "10.2.0.9", true),
            ("PACS", "10.2.0.8", false),
            ("PACS", "::ffff:10.2.0.9", true),
            ("cr1", "10.1.2.3", false),
            ("V6", "fd12::1", true),
            ("V6", "fe80::1", false),
            ("V6", "10.2.0.9", false),
            ("ANY", "127.0.0.1", true),
            ("", "10.1.2.3", false),
        ] {
            assert_eq!(allow(&entries, title, address), is_allowed, "{title} {address}");
        }
        assert!(allow(&["*"], "ANY", "203.0.113.1") && allow(&["CR@*"], "CR", "::1"));
        for entry in ["CR@::ffff:10.2.0.9", "CR@::ffff:10.2.0.0/112"] {
            assert!(allow(&[entry], "CR", "10.2.0.9") && allow(&[entry], "CR", "::ffff:10.2.0.9"), "{entry}");
            assert!(!allow(&[entry], "CR", "10.3.0.9") && !allow(&[entry], "CR", "::1"), "{entry}");
        }
        assert!(allow(&["CR@0.0.0.0/0"], "CR", "203.0.113.1") && !allow(&["CR@0.0.0.0/0"], "CR", "::1"));
    }

    #[test]
    fn a_network_of_all_addresses_is_open_to_all() {
        let is_open = |entry: &str| Peers::parse(&[entry.to_owned()]).unwrap().is_open();
        assert!(["*", "CR@*", "*@0.0.0.0/0", "CR@::/0"].into_iter().all(is_open));
        assert!(!["*@10.0.0.0/8", "CR@::1", "CR@::ffff:0.0.0.0/97"].into_iter().any(is_open));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_entry() {
        for entry in ["", "CR", "@10.0.0.1", "CR@", "CR@host", "CR@10.0.0.0/33", "CR@10.0.0.0/", "A\\B@*", "**"] {
            let error = Peers::parse(&[entry.to_owned()]).unwrap_err();
            assert!(error.contains("allowed_peers") && error.contains(&format!("{entry:?}")), "{error}");
        }
        assert!(Peers::parse(&["SEVENTEEN-LETTERS@*".to_owned()]).is_err());
        assert!(Peers::parse(&[]).unwrap_err().contains("allowed_peers"));
    }
}
