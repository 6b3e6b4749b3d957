/* SPDX-License-Identifier: GPL-2.0-only */
/* The decision core as native code, for the tests: crate::bpf::policy. */
#define POLICY_FN
#include "policy.h"
