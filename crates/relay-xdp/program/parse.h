/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Reading a frame. Nothing is written here; every frame that is not exactly of the expected shape is left to the
 * kernel and the relay, which know all others.
 */
#pragma once

#include "tables.h"

/* Longer frames are super-packets that only look like one datagram; and offsets must stay below 64 KiB. */
enum { LONGEST_FRAME = 16384 };

/* A frame that may be forwarded, as far as it alone can tell. */
struct packet {
	struct route_key key;
	struct station station; /* whom the frame is for */
	u16 checksum; /* of UDP */
	u16 udp_length; /* host order */
	u16 data_length; /* host order: without ChannelData header and padding */
	u16 family;
	u16 origin;
	u8 padding; /* bytes behind the data */
	u8 class;
	u8 hop_limit;
	u8 headers; /* bytes of IP and UDP header */
	u16 frame_length;
};

INLINE enum reason parse_channel_data(const struct udp *udp, const void *end, struct packet *packet)
{
	const struct channel_data *header = (const void *)(udp + 1);
	u16 payload = packet->udp_length - UDP_SIZE;

	if (payload < CHANNEL_DATA_SIZE || (const void *)(header + 1) > end)
		return CONTROL;
	/* RFC 7983: 64 to 127 are channels. Numbers that nobody can bind are in no route. */
	if ((*(const u8 *)header & 0xc0) != 0x40)
		return CONTROL;
	packet->data_length = HOST16(header->length);
	/* RFC 8656, section 12.4: over UDP padding is allowed, and at most three bytes. */
	if ((u32)packet->data_length + CHANNEL_DATA_SIZE > payload)
		return BAD_LENGTH;
	if (payload - CHANNEL_DATA_SIZE - packet->data_length > 3)
		return BAD_LENGTH;
	packet->padding = payload - CHANNEL_DATA_SIZE - packet->data_length;
	packet->origin = FROM_CLIENT;
	packet->key.ports = join_halves(udp->source, header->channel);
	packet->key.kind = kind(FROM_CLIENT, packet->family);
	return NONE;
}

/* `available`: bytes of the IP packet behind its header. */
INLINE enum reason parse_udp(const struct udp *udp, const void *end, u32 available, struct packet *packet)
{
	u16 port = HOST16(udp->destination);

	if (udp->destination != settings.listener_port && (port < settings.first_port || port > settings.last_port))
		return NOT_OURS;
	packet->udp_length = HOST16(udp->length);
	if (packet->udp_length != available || packet->udp_length < UDP_SIZE)
		return BAD_LENGTH;
	packet->checksum = udp->checksum;
	if (udp->destination == settings.listener_port)
		return parse_channel_data(udp, end, packet);
	packet->data_length = packet->udp_length - UDP_SIZE;
	packet->origin = FROM_PEER;
	packet->key.ports = join_halves(udp->source, udp->destination);
	packet->key.kind = kind(FROM_PEER, packet->family);
	return NONE;
}

INLINE enum reason parse_ipv4(const void *data, const void *end, struct packet *packet)
{
	const struct ipv4 *ip = data + ETHERNET_SIZE;
	const struct udp *udp = (const void *)(ip + 1);
	u32 length;

	if ((const void *)(udp + 1) > end)
		return NOT_OURS;
	if (ip->protocol != PROTOCOL_UDP || ip->destination != unmapped(local_v4()))
		return NOT_OURS;
	if (ip->version_and_length != 0x45)
		return IP_OPTIONS;
	if (ip->fragment & NETWORK16((u16)~DO_NOT_FRAGMENT))
		return FRAGMENT;
	length = HOST16(ip->length);
	if (length < IPV4_SIZE + UDP_SIZE || length > packet->frame_length - ETHERNET_SIZE)
		return BAD_LENGTH;
	if (fold(sum_of_ipv4(ip)) != 0xffff)
		return BAD_CHECKSUM;
	packet->class = ip->class;
	packet->hop_limit = ip->hop_limit;
	packet->headers = IPV4_SIZE + UDP_SIZE;
	packet->family = FAMILY_IPV4;
	packet->key.remote = mapped(ip->source);
	return parse_udp(udp, end, length - IPV4_SIZE, packet);
}

INLINE enum reason parse_ipv6(const void *data, const void *end, struct packet *packet)
{
	const struct ipv6 *ip = data + ETHERNET_SIZE;
	const struct udp *udp = (const void *)(ip + 1);
	u32 length;

	if ((const void *)(udp + 1) > end)
		return NOT_OURS;
	if (!is_same_address(read_address(ip->destination), local_v6()))
		return NOT_OURS;
	switch (ip->next_header) {
	case PROTOCOL_UDP:
		break;
	case HEADER_FRAGMENT:
		return FRAGMENT;
	case HEADER_HOP_BY_HOP:
	case HEADER_ROUTING:
	case HEADER_AUTHENTICATION:
	case HEADER_DESTINATION:
		return IP_OPTIONS;
	default:
		return NOT_OURS;
	}
	if ((ip->version_class_label & NETWORK32(0xf0000000)) != NETWORK32(0x60000000))
		return BAD_LENGTH;
	length = HOST16(ip->payload_length);
	if (length > packet->frame_length - ETHERNET_SIZE - IPV6_SIZE)
		return BAD_LENGTH;
	packet->class = (u8)(NETWORK32(ip->version_class_label) >> 20);
	packet->hop_limit = ip->hop_limit;
	packet->headers = IPV6_SIZE + UDP_SIZE;
	packet->family = FAMILY_IPV6;
	packet->key.remote = read_address(ip->source);
	return parse_udp(udp, end, length, packet);
}

INLINE enum reason parse(const struct xdp_context *context, struct packet *packet)
{
	const void *data = (const void *)(long)context->data;
	const void *end = (const void *)(long)context->data_end;
	const struct ethernet *ethernet = data;
	enum reason reason;

	if ((const void *)(ethernet + 1) > end)
		return NOT_OURS;
	if (end - data > LONGEST_FRAME)
		return NOT_OURS;
	packet->frame_length = end - data;
	packet->station = ethernet->destination;
	if (ethernet->type == NETWORK16(TYPE_IPV4))
		reason = parse_ipv4(data, end, packet);
	else if (ethernet->type == NETWORK16(TYPE_IPV6))
		reason = parse_ipv6(data, end, packet);
	else
		return NOT_OURS;
	if (reason != NONE)
		return reason;
	if (packet->hop_limit <= 1)
		return HOP_LIMIT;
	/* Without one there is nothing to carry on; IPv6 does not allow it at all (RFC 8200, section 8.1). */
	if (packet->checksum == 0 && packet->family == FAMILY_IPV6)
		return NO_CHECKSUM;
	return NONE;
}
