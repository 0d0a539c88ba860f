"""Who used what and what it cost: prices, one entry per request, reports."""
