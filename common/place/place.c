/* SPDX-License-Identifier: Apache-2.0 */
#include "place/place.h"
