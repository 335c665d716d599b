/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/daemon.h"
