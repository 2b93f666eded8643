/* ---
stage: all
needs: [personal_data]
thresholds: {max_values: 0}
adopted: false
description: E-mail addresses, phone, card, account and social security numbers, public IP addresses and secrets, examples apart.
--- */
SELECT row_id, array_to_string(list_filter([
    CASE WHEN emails > 0 THEN emails || ' e-mail' END, CASE WHEN phone_numbers > 0 THEN phone_numbers || ' phone' END,
    CASE WHEN ibans > 0 THEN ibans || ' IBAN' END, CASE WHEN payment_cards > 0 THEN payment_cards || ' card' END,
    CASE WHEN ip_addresses > 0 THEN ip_addresses || ' IP address' END,
    CASE WHEN social_security_numbers > 0 THEN social_security_numbers || ' social security' END,
    CASE WHEN secrets > 0 THEN secrets || ' secret' END], lambda item: item IS NOT NULL), ', ') AS reason
FROM signals
WHERE emails + phone_numbers + ibans + payment_cards + ip_addresses + social_security_numbers + secrets
    > getvariable('max_values')
