/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * From a frame that was read to a frame that leaves: find the route, decide, and only then change anything.
 */
#pragma once

#include "next_hop.h"

/* What was found for a packet. */
struct found {
	const struct route *route;
	u32 direction;
	u32 old_sum; /* what the addresses and numbers of the old frame have in its checksum */
};

/* What will be written, decided while the old frame is still whole. */
struct rewrite {
	const struct route *route;
	const struct next_hop *hop;
	u16 udp_length; /* host order */
	u16 checksum;
	int head; /* bytes by which the frame begins later */
	int tail; /* bytes by which it ends earlier */
};

/* Whoever makes flows meet in one place only makes them be looked up. */
INLINE u32 place_of(const struct route_key *key)
{
	u64 mixed = key->remote.low + key->remote.high * 0x9e3779b97f4a7c15 + ((u64)key->kind << 32 | key->ports);

	return (mixed * 0xd1342543de82ef95) >> 32 & (FLOWS - 1);
}

INLINE int is_same_key(const struct route_key *one, const struct route_key *other)
{
	return is_same_address(one->remote, other->remote) && one->ports == other->ports && one->kind == other->kind;
}

INLINE const struct route *look_up(const struct route_key *key)
{
	u32 first = 0, place = place_of(key);
	const u64 *present = map_lookup(&epoch, &first);
	struct flow *flow = map_lookup(&flows, &place);
	const struct route *route;
	u64 before;

	if (!present || !flow)
		return 0;
	/* Before the table is asked: what is taken out meanwhile must not be remembered. */
	before = *(const volatile u64 *)present;
	if (LIKELY(flow->epoch == before && is_same_key(&flow->key, key)))
		return &flow->route;
	route = map_lookup(&routes, key);
	if (!route)
		return 0;
	flow->key = *key;
	flow->route = *route;
	flow->epoch = before;
	return &flow->route;
}

INLINE enum reason check_route(const struct route *route)
{
	u32 port = route->port;
	u32 *generation = map_lookup(&port_generations, &port);

	return generation && *generation == route->generation ? NONE : STALE_ROUTE;
}

/*
 * A sender on this machine leaves the checksum to the interface: the field then holds the sum of the pseudo header
 * alone. Changed and sent as a frame it would be wrong for good. The same goes for super-packets.
 */
INLINE int is_unfinished(const struct packet *packet, const struct route *route)
{
	return fold((u64)route->old_addresses + NETWORK16(packet->udp_length)) == packet->checksum;
}

/*
 * The route of a packet. Between two allocations of this relay the way is cut short: what one client sends to the
 * other's relayed address is what that address would get.
 */
INLINE enum reason find_route(const struct packet *packet, struct found *found)
{
	const struct route *route = look_up(&packet->key);
	enum reason reason;

	if (!route)
		return NO_ROUTE;
	reason = check_route(route);
	if (reason != NONE)
		return reason;
	if (UNLIKELY(is_unfinished(packet, route)))
		return UNFINISHED_CHECKSUM;
	found->old_sum = (u32)route->old_addresses + route->old_numbers;
	found->direction = packet->origin == FROM_CLIENT ? TO_PEER : TO_CLIENT;
	if (UNLIKELY(route->flags & ROUTE_WITHIN_RELAY)) {
		struct route_key key = {
			.remote = route->destination,
			.ports = join_halves(route->source_port, route->destination_port),
			.kind = kind(FROM_PEER, route->family),
		};

		/* Nobody outside may send from the relay's own address. */
		if (packet->origin != FROM_CLIENT)
			return NO_ROUTE;
		route = look_up(&key);
		if (!route)
			return NO_ROUTE;
		reason = check_route(route);
		if (reason != NONE)
			return reason;
		found->direction = WITHIN_RELAY;
	}
	found->route = route;
	return NONE;
}

/* The padding's part in the checksum: one to three bytes, the first at an odd place if the data has an odd length. */
INLINE u32 sum_of_padding(const struct xdp_context *context, const struct packet *packet)
{
	const u8 *data = (const void *)(long)context->data;
	const u8 *end = (const void *)(long)context->data_end;
	u32 place = ETHERNET_SIZE + packet->headers + CHANNEL_DATA_SIZE + packet->data_length;
	const u8 *padding = data + (place & 0x7fff);
	u32 odd = packet->data_length & 1;
	u32 sum = 0;

#pragma unroll
	for (u32 index = 0; index < 3; index++) {
		if (index >= packet->padding || (const void *)(padding + index + 1) > (const void *)end)
			break;
		/* Even places are the high bytes of network order. */
		sum += (index + odd) & 1 ? padding[index] : (u32)padding[index] << 8;
	}
	return NETWORK16(fold(sum));
}

/*
 * RFC 1624: takes out of the checksum what the old frame says and puts in what the new one will; the data's own part
 * stays. Its length stands in the pseudo header and in the UDP header. A ChannelData header has an even length, so
 * the data keeps its place between high and low bytes.
 */
INLINE u16 new_checksum(const struct xdp_context *context, const struct packet *packet, const struct found *found,
			u16 udp_length)
{
	u32 data_length = NETWORK16(packet->data_length);
	u32 old = found->old_sum + 2 * (u32)NETWORK16(packet->udp_length);
	u32 new = found->route->new_sum + 2 * (u32)NETWORK16(udp_length);
	u16 checksum;

	if (packet->origin == FROM_CLIENT) {
		old += data_length;
		if (UNLIKELY(packet->padding))
			old += sum_of_padding(context, packet);
	}
	if (found->route->channel)
		new += data_length;
	checksum = ~fold((u64)(u16)~packet->checksum + (u16)~fold(old) + new);
	/* Zero says that there is none (RFC 768). */
	return checksum ? checksum : 0xffff;
}

INLINE enum reason decide(struct xdp_context *context, const struct packet *packet, const struct found *found, u64 now,
			  struct rewrite *rewrite)
{
	const struct route *route = found->route;
	u32 ip_size = route->family == FAMILY_IPV4 ? IPV4_SIZE : IPV6_SIZE;
	u32 old_channel = packet->origin == FROM_CLIENT ? CHANNEL_DATA_SIZE : 0;
	u32 new_channel = route->channel ? CHANNEL_DATA_SIZE : 0;
	struct next_hop *hop = 0;
	enum reason reason;
	u32 length;

	rewrite->udp_length = UDP_SIZE + new_channel + packet->data_length;
	length = ip_size + rewrite->udp_length;
	/* Over IPv4 the sender may do without; over IPv6 the relay must make one, which takes the whole packet. */
	if (packet->checksum == 0 && route->family == FAMILY_IPV6)
		return NO_CHECKSUM;
	reason = find_next_hop(context, route, length, now, &hop);
	if (reason != NONE)
		return reason;
	/* On a shared wire an interface also hears what is for other stations. */
	if (packet->station.first != hop->source.first || packet->station.second != hop->source.second ||
	    packet->station.third != hop->source.third)
		return OTHER_STATION;
	rewrite->route = route;
	rewrite->hop = hop;
	rewrite->head = (int)(packet->headers + old_channel) - (int)(ip_size + UDP_SIZE + new_channel);
	rewrite->tail = (int)packet->frame_length - rewrite->head - (int)(ETHERNET_SIZE + length);
	rewrite->checksum = packet->checksum ? new_checksum(context, packet, found, rewrite->udp_length) : 0;
	return NONE;
}

INLINE void write_udp(struct udp *udp, const struct rewrite *rewrite)
{
	udp->source = rewrite->route->source_port;
	udp->destination = rewrite->route->destination_port;
	udp->length = NETWORK16(rewrite->udp_length);
	udp->checksum = rewrite->checksum;
}

INLINE int write_channel(struct udp *udp, const void *end, const struct packet *packet, const struct rewrite *rewrite)
{
	struct channel_data *header = (void *)(udp + 1);

	if (!rewrite->route->channel)
		return 1;
	if ((const void *)(header + 1) > end)
		return 0;
	header->channel = rewrite->route->channel;
	header->length = NETWORK16(packet->data_length);
	return 1;
}

/* Without options, never in fragments: what the relay's sockets send looks the same. */
INLINE int write_ipv4(void *data, const void *end, const struct packet *packet, const struct rewrite *rewrite)
{
	struct ipv4 *ip = data + ETHERNET_SIZE;
	struct udp *udp = (void *)(ip + 1);
	u16 length = NETWORK16(IPV4_SIZE + rewrite->udp_length);
	u16 first = NETWORK16(0x4500 | packet->class);
	u16 fragment = NETWORK16(DO_NOT_FRAGMENT);
	u8 hop_limit = packet->hop_limit - 1;
	u32 source = unmapped(local_v4());
	u32 destination = unmapped(rewrite->route->destination);

	if ((const void *)(udp + 1) > end)
		return 0;
	ip->version_and_length = 0x45;
	ip->class = packet->class;
	ip->length = length;
	ip->identification = 0;
	ip->fragment = fragment;
	ip->hop_limit = hop_limit;
	ip->protocol = PROTOCOL_UDP;
	ip->checksum = ~fold((u64)first + length + fragment + NETWORK16((u16)(hop_limit << 8) | PROTOCOL_UDP) + source +
			     destination);
	ip->source = source;
	ip->destination = destination;
	write_udp(udp, rewrite);
	return write_channel(udp, end, packet, rewrite);
}

INLINE int write_ipv6(void *data, const void *end, const struct packet *packet, const struct rewrite *rewrite)
{
	struct ipv6 *ip = data + ETHERNET_SIZE;
	struct udp *udp = (void *)(ip + 1);

	if ((const void *)(udp + 1) > end)
		return 0;
	ip->version_class_label = NETWORK32(0x60000000 | (u32)packet->class << 20);
	ip->payload_length = NETWORK16(rewrite->udp_length);
	ip->next_header = PROTOCOL_UDP;
	ip->hop_limit = packet->hop_limit - 1;
	write_address(ip->source, local_v6());
	write_address(ip->destination, rewrite->route->destination);
	write_udp(udp, rewrite);
	return write_channel(udp, end, packet, rewrite);
}

/* Makes the new frame. Only moving its ends can fail, and then it is as it was. */
INLINE enum reason make(struct xdp_context *context, const struct packet *packet, const struct rewrite *rewrite,
			int *action)
{
	int is_ipv4 = rewrite->route->family == FAMILY_IPV4;
	struct ethernet *ethernet;
	const void *end;
	void *data;

	if (rewrite->head != 0 && adjust_head(context, rewrite->head))
		return NO_HEADROOM;
	if (UNLIKELY(rewrite->tail > 0) && adjust_tail(context, -rewrite->tail)) {
		if (rewrite->head != 0 && adjust_head(context, -rewrite->head))
			*action = XDP_ABORTED;
		return NO_HEADROOM;
	}
	/* The bounds were checked before; the verifier wants to see it again. */
	*action = XDP_ABORTED;
	data = (void *)(long)context->data;
	end = (const void *)(long)context->data_end;
	ethernet = data;
	if ((const void *)(ethernet + 1) > end)
		return NO_HEADROOM;
	ethernet->destination = rewrite->hop->destination_station;
	ethernet->source = rewrite->hop->source;
	ethernet->type = is_ipv4 ? NETWORK16(TYPE_IPV4) : NETWORK16(TYPE_IPV6);
	if (is_ipv4 ? write_ipv4(data, end, packet, rewrite) : write_ipv6(data, end, packet, rewrite))
		*action = XDP_TX;
	return NONE;
}
