/* SPDX-License-Identifier: Apache-2.0 */
#include "optim/optim.h"
