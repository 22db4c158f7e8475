/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The way to an address: who gets the frame, and how long it may be. The kernel's own routes and neighbours answer;
 * an answer serves for a second.
 */
#pragma once

#include "parse.h"

enum {
	REFRESH_SECONDS = 1,
	/* The kernel watches only over neighbours that it sends to itself. */
	CONFIRM_SECONDS = 30,
	/* Always this number. Asked on behalf of this interface, the kernel looks a packet's way up as for its own. */
	LOOPBACK_INTERFACE = 1,
};

INLINE enum reason ask_kernel(struct xdp_context *context, const struct route *route, u16 length, struct next_hop *hop)
{
	struct fib_lookup question = {
		.family = route->family,
		.protocol = PROTOCOL_UDP,
		.source_port = route->source_port,
		.destination_port = route->destination_port,
		.length = length,
		.interface = LOOPBACK_INTERFACE,
	};
	long answer;

	if (route->family == FAMILY_IPV4) {
		question.source[0] = unmapped(local_v4());
		question.destination[0] = unmapped(route->destination);
	} else {
		write_address(question.source, local_v6());
		write_address(question.destination, route->destination);
	}
	answer = fib_lookup(context, &question, sizeof(question), 0);
	if (answer == FIB_TOO_LONG)
		return TOO_LONG;
	if (answer != FIB_SUCCESS)
		return NO_NEXT_HOP;
	hop->destination = route->destination;
	hop->source = question.source_station;
	hop->destination_station = question.destination_station;
	hop->interface = question.interface;
	/* Kernels before 5.12 leave the length as it was: then only shorter packets need not ask again. */
	hop->mtu = question.length;
	return NONE;
}

/* `length`: of the IP packet that will leave. */
INLINE enum reason find_next_hop(struct xdp_context *context, const struct route *route, u16 length, u64 now,
				 struct next_hop **found)
{
	u32 place = route->next_hop;
	struct next_hop *hop = map_lookup(&next_hops, &place);
	enum reason reason;

	if (!hop)
		return NO_NEXT_HOP;
	if (UNLIKELY(now >= hop->confirm_at)) {
		u64 was = hop->confirm_at;

		hop->confirm_at = now + CONFIRM_SECONDS * settings.ticks_per_second;
		if (was != 0)
			return CONFIRMATION;
	}
	if (UNLIKELY(now >= hop->refresh_at || !is_same_address(hop->destination, route->destination) ||
		     length > hop->mtu)) {
		hop->refresh_at = 0;
		reason = ask_kernel(context, route, length, hop);
		if (reason != NONE)
			return reason;
		hop->refresh_at = now + REFRESH_SECONDS * settings.ticks_per_second;
	}
	if (hop->interface != context->ingress_interface)
		return OTHER_INTERFACE;
	*found = hop;
	return NONE;
}
