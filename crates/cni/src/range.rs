//! host-local's ranges of addresses.
//!
//! The rules are those of the host-local plugin, `plugins/ipam/host-local/backend/allocator/range.go` and
//! `allocator.go` (containernetworking/plugins): what is not given is filled in as the plugin does.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A network in CIDR form. The bits of the host part are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Subnet {
    address: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// The first address, which names the network.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits all its addresses share.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// True if the address is one of the network's, of the same family.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.address.is_ipv4() == ip.is_ipv4() && number(ip) & !self.host_bits() == number(self.address)
    }

    fn width(&self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    fn host_bits(&self) -> u128 {
        u128::MAX
            .checked_shr(128 - u32::from(self.width() - self.prefix))
            .unwrap_or(0)
    }

    /// The address so many after the first.
    fn nth(&self, n: u128) -> IpAddr {
        address(
            number(self.address) | (n & self.host_bits()),
            self.address.is_ipv4(),
        )
    }

    /// The last address that host-local hands out by default: all but the broadcast address, which v6 has none of.
    fn last(&self) -> IpAddr {
        self.nth(if self.address.is_ipv4() {
            self.host_bits().saturating_sub(1)
        } else {
            self.host_bits()
        })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = String;

    /// Host bits are cleared, as flannel and libcni do when they read a network.
    fn from_str(text: &str) -> Result<Self, String> {
        let fail = || {
            format!(
                "\"{}\" is not a network of the form address/bits",
                crate::names::printable(text, 60)
            )
        };
        let (ip, bits) = text.split_once('/').ok_or_else(fail)?;
        let address: IpAddr = ip.parse().map_err(|_| fail())?;
        let prefix: u8 = bits.parse().map_err(|_| fail())?;
        let plain = bits.bytes().all(|byte| byte.is_ascii_digit());
        if !plain || prefix > if address.is_ipv4() { 32 } else { 128 } {
            return Err(fail());
        }
        let whole = Self { address, prefix };
        let masked = number(address) & !whole.host_bits();
        Ok(Self {
            address: self::address(masked, address.is_ipv4()),
            prefix,
        })
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

/// A part of a network that host-local hands out, both ends included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Range {
    /// The network.
    pub subnet: Subnet,
    /// The first address; `.1` unless the configuration says otherwise.
    pub start: IpAddr,
    /// The last address; the one before the broadcast address unless the configuration says otherwise.
    pub end: IpAddr,
    /// The gateway, which is never handed out; `.1` unless the configuration says otherwise.
    pub gateway: IpAddr,
}

impl Range {
    /// Fills in what is not given, and refuses what host-local refuses (`Range.Canonicalize`).
    ///
    /// # Errors
    /// A sentence that says what does not fit.
    pub fn new(
        subnet: Subnet,
        start: Option<IpAddr>,
        end: Option<IpAddr>,
        gateway: Option<IpAddr>,
    ) -> Result<Self, String> {
        if subnet.prefix > subnet.width() - 2 {
            return Err(format!(
                "the network {subnet} is too small to hand out addresses from"
            ));
        }
        let given = |what, ip: Option<IpAddr>, default| match ip.map(|ip| ip.to_canonical()) {
            Some(ip) if !subnet.contains(ip) => {
                Err(format!("the {what} {ip} is not in the network {subnet}"))
            }
            Some(ip) => Ok(ip),
            None => Ok(default),
        };
        let gateway = given("gateway", gateway, subnet.nth(1))?;
        let start = given("start of the range", start, subnet.nth(1))?;
        let end = given("end of the range", end, subnet.last())?;
        if number(start) > number(end) {
            return Err(format!("the range ends at {end}, before its start at {start}"));
        }
        Ok(Self {
            subnet,
            start,
            end,
            gateway,
        })
    }

    /// How many addresses can be handed out: all but the gateway. A /25 gives 125.
    pub fn capacity(&self) -> u128 {
        let (start, end) = (number(self.start), number(self.end));
        let all = end.checked_sub(start).map_or(0, |steps| steps.saturating_add(1));
        if self.contains(self.gateway) {
            all.saturating_sub(1)
        } else {
            all
        }
    }

    /// True if the address is between start and end. The gateway can be, although it is not handed out.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.subnet.contains(ip) && (number(self.start)..=number(self.end)).contains(&number(ip))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

/// Ranges of one family. An attachment gets one address from each set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RangeSet {
    /// The ranges, in the order of the configuration.
    pub ranges: Vec<Range>,
}

impl RangeSet {
    /// How many addresses all its ranges can hand out.
    pub fn capacity(&self) -> u128 {
        self.ranges
            .iter()
            .fold(0, |sum, range| sum.saturating_add(range.capacity()))
    }

    /// True if one of its ranges has the address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(ip))
    }
}

impl fmt::Display for RangeSet {
    /// As host-local writes it in its errors: `10.88.0.1-10.88.0.126,10.88.1.1-10.88.1.126`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{range}")?;
        }
        Ok(())
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(bits) if v4 => Ipv4Addr::from_bits(bits).into(),
        Ok(_) | Err(_) => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn whole(subnet: &str) -> Range {
        Range::new(subnet.parse().unwrap(), None, None, None).unwrap()
    }

    #[test]
    fn a_whole_network_is_filled_in_as_the_plugin_does() {
        for (subnet, text, capacity) in [
            ("10.88.0.0/25", "10.88.0.1-10.88.0.126", 125),
            ("10.88.0.0/24", "10.88.0.1-10.88.0.254", 253),
            ("10.244.3.1/24", "10.244.3.1-10.244.3.254", 253),
            ("10.88.0.0/30", "10.88.0.1-10.88.0.2", 1),
            ("0.0.0.0/0", "0.0.0.1-255.255.255.254", (1 << 32) - 3),
            (
                "fd00:1::/64",
                "fd00:1::1-fd00:1::ffff:ffff:ffff:ffff",
                (1 << 64) - 2,
            ),
            (
                "::/0",
                "::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                u128::MAX - 1,
            ),
        ] {
            assert_eq!(whole(subnet).to_string(), text);
            assert_eq!(whole(subnet).capacity(), capacity, "{subnet}");
        }
    }

    #[test]
    fn a_gateway_outside_of_the_range_costs_no_address() {
        let subnet = "10.88.0.0/24".parse().unwrap();
        let range = Range::new(subnet, Some(ip("10.88.0.10")), Some(ip("10.88.0.19")), None).unwrap();
        assert_eq!(range.capacity(), 10);
        let range = Range {
            gateway: ip("10.88.0.12"),
            ..range
        };
        assert_eq!(range.capacity(), 9);
    }

    #[test]
    fn what_the_plugin_refuses_is_refused() {
        let new = |subnet: &str, start: Option<&str>, end: Option<&str>, gateway: Option<&str>| {
            Range::new(
                subnet.parse().unwrap(),
                start.map(ip),
                end.map(ip),
                gateway.map(ip),
            )
        };
        for (subnet, start, end, gateway, says) in [
            ("10.0.0.0/31", None, None, None, "too small"),
            ("fd00::/127", None, None, None, "too small"),
            (
                "10.0.0.0/24",
                Some("10.0.1.1"),
                None,
                None,
                "start of the range 10.0.1.1 is not in",
            ),
            (
                "10.0.0.0/24",
                None,
                Some("fd00::1"),
                None,
                "end of the range fd00::1 is not in",
            ),
            (
                "10.0.0.0/24",
                None,
                None,
                Some("10.1.0.1"),
                "gateway 10.1.0.1 is not in",
            ),
            (
                "10.0.0.0/24",
                Some("10.0.0.9"),
                Some("10.0.0.8"),
                None,
                "before its start",
            ),
        ] {
            let error = new(subnet, start, end, gateway).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        assert_eq!(
            new("10.0.0.0/24", Some("::ffff:10.0.0.5"), None, None)
                .unwrap()
                .start,
            ip("10.0.0.5")
        );
    }

    #[test]
    fn networks_are_read_strictly() {
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "usePodCidr",
            "/8",
            "a/8",
        ] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_of_the_other_family_are_never_inside() {
        assert!(!whole("::/0").contains(ip("10.0.0.1")));
        assert!(!whole("0.0.0.0/0").contains(ip("::a00:1")));
        assert!(whole("10.88.0.0/25").contains(ip("10.88.0.126")));
        assert!(!whole("10.88.0.0/25").contains(ip("10.88.0.127")));
    }

    #[test]
    fn a_set_adds_up() {
        let set = RangeSet {
            ranges: vec![whole("10.88.0.0/25"), whole("10.88.1.0/25")],
        };
        assert_eq!(set.capacity(), 250);
        assert_eq!(set.to_string(), "10.88.0.1-10.88.0.126,10.88.1.1-10.88.1.126");
        assert!(set.contains(ip("10.88.1.7")) && !set.contains(ip("10.88.0.200")));
        let huge = RangeSet {
            ranges: vec![whole("::/0"), whole("::/0")],
        };
        assert_eq!(huge.capacity(), u128::MAX);
    }

    #[test]
    fn a_recording_gives_the_same_range() {
        let range = whole("10.88.0.0/25");
        let json = serde_json::to_string(&range).unwrap();
        assert!(
            json.starts_with(r#"{"subnet":"10.88.0.0/25","start":"10.88.0.1""#),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<Range>(&json).unwrap(), range);
    }
}
