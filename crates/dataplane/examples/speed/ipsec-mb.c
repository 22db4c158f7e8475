/* ChaCha20-Poly1305 by Intel's library for multi-buffer crypto, with its AVX-512 code: time of this thread, the best
   of several runs, printed as the Rust program prints its samples.
   gcc -O2 ipsec-mb.c -lIPSec_MB */

#include <intel-ipsec-mb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PACKETS = 128, PASSES = 8, REPETITIONS = 12, ROOM = 1536, TAG = 16 };

static unsigned char packets[PACKETS][ROOM], tags[PACKETS][TAG], nonces[PACKETS][12], key[32];

static double nanoseconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static void next_nonces(unsigned long pass)
{
    for (unsigned long i = 0; i < PACKETS; i++) {
        unsigned long counter = pass * PACKETS + i;
        memcpy(nonces[i] + 4, &counter, sizeof counter);
    }
}

/* One packet after the other, as our worker does. */
static void single(IMB_MGR *manager, int length, int is_seal)
{
    struct chacha20_poly1305_context_data context;
    for (int i = 0; i < PACKETS; i++) {
        IMB_CHACHA20_POLY1305_INIT(manager, key, &context, nonces[i], packets[i], 0);
        if (is_seal) {
            IMB_CHACHA20_POLY1305_ENC_UPDATE(manager, key, &context, packets[i], packets[i], length);
            IMB_CHACHA20_POLY1305_ENC_FINALIZE(manager, &context, tags[i], TAG);
        } else {
            IMB_CHACHA20_POLY1305_DEC_UPDATE(manager, key, &context, packets[i], packets[i], length);
            IMB_CHACHA20_POLY1305_DEC_FINALIZE(manager, &context, tags[i], TAG);
        }
    }
}

/* Several packets at a time, as far as the library does that. */
static void jobs(IMB_MGR *manager, int length)
{
    for (int i = 0; i < PACKETS; i++) {
        IMB_JOB *job = IMB_GET_NEXT_JOB(manager);
        memset(job, 0, sizeof *job);
        job->cipher_mode = IMB_CIPHER_CHACHA20_POLY1305;
        job->hash_alg = IMB_AUTH_CHACHA20_POLY1305;
        job->cipher_direction = IMB_DIR_ENCRYPT;
        job->chain_order = IMB_ORDER_CIPHER_HASH;
        job->enc_keys = job->dec_keys = key;
        job->key_len_in_bytes = sizeof key;
        job->src = job->dst = packets[i];
        job->iv = nonces[i];
        job->iv_len_in_bytes = sizeof nonces[i];
        job->msg_len_to_cipher_in_bytes = job->msg_len_to_hash_in_bytes = length;
        job->auth_tag_output = tags[i];
        job->auth_tag_output_len_in_bytes = TAG;
        for (job = IMB_SUBMIT_JOB_NOCHECK(manager); job; job = IMB_GET_COMPLETED_JOB(manager))
            ;
    }
    while (IMB_FLUSH_JOB(manager))
        ;
}

static double measure(IMB_MGR *manager, int length, int is_seal, int with_jobs)
{
    double best = 1e18;
    for (int repetition = 0; repetition < REPETITIONS; repetition++) {
        double time = 0;
        for (int pass = 0; pass < PASSES; pass++) {
            next_nonces(pass);
            double begin = nanoseconds();
            if (with_jobs)
                jobs(manager, length);
            else
                single(manager, length, is_seal);
            time += nanoseconds() - begin;
        }
        if (time < best)
            best = time;
    }
    return best / (PASSES * PACKETS);
}

int main(void)
{
    static const int lengths[] = {1420, 64};
    IMB_MGR *manager = alloc_mb_mgr(0);
    if (!manager)
        return EXIT_FAILURE;
    init_mb_mgr_avx512(manager);
    memset(key, 9, sizeof key);
    for (int i = 0; i < 2; i++) {
        int length = lengths[i];
        printf("chacha20_poly1305_seal_%d_ns ipsec-mb 1 %f\n", length, measure(manager, length, 1, 0));
        printf("chacha20_poly1305_open_%d_ns ipsec-mb 1 %f\n", length, measure(manager, length, 0, 0));
        printf("chacha20_poly1305_seal_%d_ns ipsec-mb-jobs 1 %f\n", length, measure(manager, length, 1, 1));
    }
    free_mb_mgr(manager);
    return EXIT_SUCCESS;
}
