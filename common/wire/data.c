/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/data.h"
