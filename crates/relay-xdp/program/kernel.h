/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What the program needs of the kernel's stable interface (uapi linux/bpf.h). Declared here, so that building needs
 * clang and no header of any kernel or library.
 */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define LIKELY(condition) __builtin_expect(!!(condition), 1)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define NETWORK16(value) ((u16)__builtin_bswap16(value))
#define NETWORK32(value) ((u32)__builtin_bswap32(value))
#else
#define NETWORK16(value) ((u16)(value))
#define NETWORK32(value) ((u32)(value))
#endif
/* The other way is the same exchange. */
#define HOST16(value) NETWORK16(value)

/* Types of maps. */
enum { MAP_HASH = 1, MAP_ARRAY = 2, MAP_PER_CPU_ARRAY = 6 };
/* Memory for an entry is taken when it is inserted, not when the map is made. */
enum { MAP_NO_PREALLOCATION = 1 };

/* A map is described to the loader by the types of these members (BTF). */
#define MAP_NUMBER(name, value) int(*name)[value]
#define MAP_TYPE(name, type) type *name

struct xdp_context {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_interface;
	u32 rx_queue;
	u32 egress_interface;
};

enum { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX };

enum { FAMILY_IPV4 = 2, FAMILY_IPV6 = 10 };

/* A hardware address. */
struct station {
	u16 first;
	u16 second;
	u16 third;
};

/* Question and answer of the helper `fib_lookup`. Addresses and ports in network order. */
struct fib_lookup {
	u8 family;
	u8 protocol;
	u16 source_port;
	u16 destination_port;
	u16 length; /* in: of the IP packet; out: the way's MTU */
	u32 interface; /* in: where the packet came from; out: where it leaves */
	u32 class;
	u32 source[4]; /* IPv4: the first word */
	u32 destination[4];
	u16 vlan_protocol;
	u16 vlan_tag;
	struct station source_station;
	struct station destination_station;
};

enum { FIB_SUCCESS = 0, FIB_NO_NEIGHBOUR = 7, FIB_TOO_LONG = 8 };

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const adjust_head)(struct xdp_context *context, int delta) = (void *)44;
static long (*const adjust_tail)(struct xdp_context *context, int delta) = (void *)65;
static long (*const fib_lookup)(void *context, struct fib_lookup *question, int size, u32 flags) = (void *)69;
/* The kernel's own clock, in ticks; the verifier turns the call into a load. */
static u64 (*const ticks)(void) = (void *)118;
