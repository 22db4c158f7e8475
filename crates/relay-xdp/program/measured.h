/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The program in a form that can run many times on one frame: it puts back what it changed. Only for measurements;
 * `restored` does nothing but that, and is what the measurement itself costs.
 */
#pragma once

enum { SAVED_WORDS = 9 };

INLINE long length_of(const struct xdp_context *context)
{
	long length = (long)context->data_end - (long)context->data;

	/* Or the compiler would mix two such differences, which the verifier does not follow. */
	__asm__ volatile("" : "+r"(length));
	return length;
}

INLINE int run_and_restore(struct xdp_context *context, int with_relay)
{
	u64 *words = (void *)(long)context->data;
	u64 saved[SAVED_WORDS];
	long before, after;
	int action = XDP_TX;

	if ((void *)(words + SAVED_WORDS) > (void *)(long)context->data_end)
		return XDP_ABORTED;
	before = length_of(context);
#pragma unroll
	for (int index = 0; index < SAVED_WORDS; index++)
		saved[index] = words[index];
	if (with_relay)
		action = relay_frame(context);
	after = length_of(context);
	/* Also where nothing is to be moved: so both programs measure the same. */
	if (adjust_head(context, (int)(after - before)))
		return XDP_ABORTED;
	words = (void *)(long)context->data;
	if ((void *)(words + SAVED_WORDS) > (void *)(long)context->data_end)
		return XDP_ABORTED;
#pragma unroll
	for (int index = 0; index < SAVED_WORDS; index++)
		words[index] = saved[index];
	return action;
}

SECTION("xdp")
int repeated(struct xdp_context *context)
{
	return run_and_restore(context, 1);
}

SECTION("xdp")
int restored(struct xdp_context *context)
{
	return run_and_restore(context, 0);
}
