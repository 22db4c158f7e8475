/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Headers as they lie in a frame, and sums over them. Every number is in network order.
 *
 * Not packed: behind an Ethernet header every field begins at an even address, and the loads and stores that the
 * compiler makes are left to the machine.
 */
#pragma once

#include "kernel.h"

struct ethernet {
	struct station destination;
	struct station source;
	u16 type;
};

struct ipv4 {
	u8 version_and_length;
	u8 class;
	u16 length;
	u16 identification;
	u16 fragment;
	u8 hop_limit;
	u8 protocol;
	u16 checksum;
	u32 source;
	u32 destination;
};

struct ipv6 {
	u32 version_class_label;
	u16 payload_length;
	u8 next_header;
	u8 hop_limit;
	u32 source[4];
	u32 destination[4];
};

struct udp {
	u16 source;
	u16 destination;
	u16 length;
	u16 checksum;
};

struct channel_data {
	u16 channel;
	u16 length;
};

enum {
	ETHERNET_SIZE = 14,
	IPV4_SIZE = 20,
	IPV6_SIZE = 40,
	UDP_SIZE = 8,
	CHANNEL_DATA_SIZE = 4,
};

_Static_assert(sizeof(struct ethernet) == ETHERNET_SIZE, "Ethernet header");
_Static_assert(sizeof(struct ipv4) == IPV4_SIZE, "IPv4 header");
_Static_assert(sizeof(struct ipv6) == IPV6_SIZE, "IPv6 header");
_Static_assert(sizeof(struct udp) == UDP_SIZE, "UDP header");
_Static_assert(sizeof(struct channel_data) == CHANNEL_DATA_SIZE, "ChannelData header");

enum { TYPE_IPV4 = 0x0800, TYPE_IPV6 = 0x86dd };
enum { PROTOCOL_UDP = 17 };
/* Of the field `fragment`. */
enum { DO_NOT_FRAGMENT = 0x4000 };

/* IPv6 extension headers that may stand before UDP. */
enum { HEADER_HOP_BY_HOP = 0, HEADER_ROUTING = 43, HEADER_FRAGMENT = 44, HEADER_AUTHENTICATION = 51, HEADER_DESTINATION = 60 };

/*
 * Folds a sum of at most 65,536 words of 32 bits into the 16 of an Internet checksum (RFC 1071), without the final
 * complement. After the first step it is below 2^32 + 2^16, after the second at most 0x1fffe or 0x10000 and a little
 * more, which the last carry cannot overflow again.
 */
INLINE u16 fold(u64 sum)
{
	sum = (u32)sum + (sum >> 32);
	sum = (u16)sum + (sum >> 16);
	return (u16)(sum + (sum >> 16));
}

/* An address in its canonical 16 bytes: IPv4 as ::ffff:a.b.c.d. */
struct address {
	u64 high;
	u64 low;
};

INLINE u64 sum_of_ipv4(const struct ipv4 *header)
{
	const u32 *words = (const u32 *)header;
	return (u64)words[0] + words[1] + words[2] + words[3] + words[4];
}

INLINE int is_same_address(struct address one, struct address other)
{
	return one.high == other.high && one.low == other.low;
}

/* Where the words of an address are in its halves. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
enum { FIRST_WORD = 0, SECOND_WORD = 32 };
#else
enum { FIRST_WORD = 32, SECOND_WORD = 0 };
#endif

/* Two words of an address as they lie in memory, one after the other. */
INLINE u64 join(u32 first, u32 second)
{
	return (u64)first << FIRST_WORD | (u64)second << SECOND_WORD;
}

INLINE struct address mapped(u32 ipv4)
{
	return (struct address){ .high = 0, .low = join(NETWORK32(0xffff), ipv4) };
}

/* The IPv4 address in a mapped one. */
INLINE u32 unmapped(struct address address)
{
	return (u32)(address.low >> SECOND_WORD);
}

/* In a frame an address begins anywhere even. */
INLINE struct address read_address(const u32 words[4])
{
	return (struct address){ .high = join(words[0], words[1]), .low = join(words[2], words[3]) };
}

INLINE void write_address(u32 words[4], struct address address)
{
	words[0] = (u32)(address.high >> FIRST_WORD);
	words[1] = (u32)(address.high >> SECOND_WORD);
	words[2] = (u32)(address.low >> FIRST_WORD);
	words[3] = (u32)(address.low >> SECOND_WORD);
}

/* Two numbers of 16 bits as they lie in memory, one after the other. */
INLINE u32 join_halves(u16 first, u16 second)
{
	return (u32)first << (FIRST_WORD / 2) | (u32)second << (SECOND_WORD / 2);
}
