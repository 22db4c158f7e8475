/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What program and relay share. The same layouts are written byte by byte in `layout.rs`.
 */
#pragma once

#include "frame.h"

/* Set once, before the program is loaded. */
struct settings {
	struct address local_v4; /* the relay's own addresses; zero where it has none */
	struct address local_v6;
	u16 listener_port; /* network order */
	u16 first_port; /* to lend; host order */
	u16 last_port;
	u16 ticks_per_second; /* of the kernel's clock */
};

volatile const struct settings settings SECTION(".rodata") = {};

/* From where a packet of a route comes. */
enum { FROM_CLIENT = 0, FROM_PEER = 1 };

/*
 * Names the packets of one channel in one direction. Written and read in words of the same size, since a processor
 * that reads together what was just written in pieces must wait.
 */
struct route_key {
	struct address remote; /* who sent it */
	u32 ports; /* the sender's, then from clients the channel, from peers the relayed port; network order */
	u32 kind; /* origin and family: an IPv6 frame may carry a mapped address, which is not that IPv4 address */
};

INLINE u32 kind(u16 origin, u16 family)
{
	return join_halves(origin, family);
}

enum {
	/* The peer is a relayed address of this relay: no frame may come from it or go to it. */
	ROUTE_WITHIN_RELAY = 1,
};

/* What becomes of them. */
struct route {
	struct address destination;
	u16 destination_port;
	u16 source_port; /* to peers the relayed port, to clients the listener's */
	u16 channel; /* to clients; zero to peers */
	u8 family; /* of the destination: FAMILY_IPV4, FAMILY_IPV6 */
	u8 flags;
	u32 port; /* of the relayed port: its place in `port_generations` */
	u32 generation; /* what must be there for the route to be good */
	u16 next_hop; /* place in `next_hops` */
	/*
	 * Parts of checksums that are the same for every packet of the route: of the old frame its addresses and protocol,
	 * then its ports and channel number, and all of them of the new frame.
	 */
	u16 old_addresses;
	u16 old_numbers;
	u16 new_sum;
	u64 name; /* the relay's, who compares it before it removes a route */
};

struct {
	MAP_NUMBER(type, MAP_HASH);
	MAP_NUMBER(max_entries, 131072);
	MAP_NUMBER(map_flags, MAP_NO_PREALLOCATION);
	MAP_TYPE(key, struct route_key);
	MAP_TYPE(value, struct route);
} routes SECTION(".maps");

/*
 * Routes that were used of late, for each processor by itself: comparing a key takes a fraction of finding it. An
 * entry is good while `epoch` is what it was; the relay moves it on whenever a route goes or changes.
 */
struct flow {
	struct route_key key;
	u64 epoch;
	struct route route;
};

enum { FLOWS = 2048 };

struct {
	MAP_NUMBER(type, MAP_PER_CPU_ARRAY);
	MAP_NUMBER(max_entries, FLOWS);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct flow);
} flows SECTION(".maps");

/* Never zero, which is what new entries have. */
struct {
	MAP_NUMBER(type, MAP_ARRAY);
	MAP_NUMBER(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u64);
} epoch SECTION(".maps");

/*
 * Counts how often a port was lent, for both families side by side. Taking a port back is one write here, after
 * which no route of the old holder forwards, whether or not it is still in the map.
 */
struct {
	MAP_NUMBER(type, MAP_ARRAY);
	MAP_NUMBER(max_entries, 131072);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u32);
} port_generations SECTION(".maps");

/* Until which tick the relay lets the program forward. */
struct {
	MAP_NUMBER(type, MAP_ARRAY);
	MAP_NUMBER(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u64);
} lease SECTION(".maps");

/* What the kernel said about the way to an address; each processor has its own, so that nothing is locked. */
struct next_hop {
	struct address destination;
	u64 refresh_at; /* when the kernel must be asked again */
	u64 confirm_at; /* when a packet must go up, so that the kernel notices a neighbour that is gone */
	u32 interface;
	u16 mtu;
	struct station source;
	struct station destination_station;
	u16 reserved[3];
};

enum { NEXT_HOPS = 4096 };

struct {
	MAP_NUMBER(type, MAP_PER_CPU_ARRAY);
	MAP_NUMBER(max_entries, NEXT_HOPS);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct next_hop);
} next_hops SECTION(".maps");

/* Directions of what is forwarded. */
enum { TO_PEER, TO_CLIENT, WITHIN_RELAY, DIRECTIONS };

/* Why a frame for the relay goes up to its sockets. The order is that of `PassReason` in `counters.rs`. */
enum reason {
	CONTROL, /* STUN, not ChannelData */
	IP_OPTIONS,
	FRAGMENT,
	BAD_LENGTH,
	BAD_CHECKSUM, /* of the IPv4 header */
	UNFINISHED_CHECKSUM,
	NO_CHECKSUM,
	HOP_LIMIT,
	NO_ROUTE,
	STALE_ROUTE,
	NO_LEASE,
	NO_NEXT_HOP,
	OTHER_INTERFACE,
	OTHER_STATION,
	TOO_LONG,
	NO_HEADROOM,
	CONFIRMATION,
	REASONS,
	/* Not counted: nothing of the relay's. */
	NOT_OURS,
	/* Forwarded. */
	NONE,
};

struct counters {
	u64 packets[DIRECTIONS];
	u64 bytes[DIRECTIONS];
	u64 passed[REASONS];
};

struct {
	MAP_NUMBER(type, MAP_PER_CPU_ARRAY);
	MAP_NUMBER(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct counters);
} counters SECTION(".maps");

INLINE struct address local_v4(void)
{
	return (struct address){ .high = settings.local_v4.high, .low = settings.local_v4.low };
}

INLINE struct address local_v6(void)
{
	return (struct address){ .high = settings.local_v6.high, .low = settings.local_v6.low };
}
