/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The relay's path through the kernel: data on bound channels goes from frame to frame before the kernel makes
 * anything else of it.
 *
 * A frame is either forwarded whole or handed up untouched (XDP_PASS), to the kernel and the relay's sockets, where
 * everything works as well. So the program need not know every shape of a frame, only be sure of those it takes:
 *
 *     parse           is it UDP for the relay, plain and complete?
 *     find_route      did the relay say what becomes of it, and does that still hold?
 *     decide          who gets the frame, does it fit the way, what is its checksum?
 *     make            the only part that writes
 *
 * Nothing is ever dropped, nothing is told per packet; counters say why packets went up.
 */
#include "forward.h"

/* As `LEASE` in `lib.rs`. */
enum { LEASE_SECONDS = 10 };

INLINE enum reason forward(struct xdp_context *context, struct packet *packet, struct counters *counters, u64 now,
			   int *action)
{
	struct found found = {};
	struct rewrite rewrite;
	enum reason reason;

	reason = find_route(packet, &found);
	if (reason != NONE)
		return reason;
	reason = decide(context, packet, &found, now, &rewrite);
	if (reason != NONE)
		return reason;
	reason = make(context, packet, &rewrite, action);
	if (reason != NONE)
		return reason;
	/* For the verifier, which has lost sight of it. */
	if (found.direction < DIRECTIONS) {
		counters->packets[found.direction] += 1;
		counters->bytes[found.direction] += packet->data_length;
	}
	return NONE;
}

INLINE int relay_frame(struct xdp_context *context)
{
	struct packet packet = {};
	enum reason reason = parse(context, &packet);
	int action = XDP_PASS;
	u32 first = 0;
	struct counters *counted;
	u64 *until;
	u64 now;

	if (reason == NOT_OURS)
		return XDP_PASS;
	counted = map_lookup(&counters, &first);
	if (!counted)
		return XDP_PASS;
	if (reason == NONE) {
		until = map_lookup(&lease, &first);
		now = ticks();
		/* A relay that stands still ends no route, so it may not keep any. */
		reason = until && now < *until ? forward(context, &packet, counted, now, &action) : NO_LEASE;
	}
	if (reason < REASONS)
		counted->passed[reason] += 1;
	return action;
}

SECTION("xdp")
int relay(struct xdp_context *context)
{
	return relay_frame(context);
}

/* Run by the relay itself, on no frame at all: the clock that counts here is only known here. */
SECTION("xdp")
int renew(struct xdp_context *context)
{
	u32 first = 0;
	u64 *until = map_lookup(&lease, &first);

	(void)context;
	if (until)
		*until = ticks() + LEASE_SECONDS * settings.ticks_per_second;
	return XDP_PASS;
}

#ifdef MEASURED
#include "measured.h"
#endif

/* Some helpers are given only to programs under the kernel's licence. */
char relay_license[] SECTION("license") = "Dual MIT/GPL";
