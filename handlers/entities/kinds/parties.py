"""Customers and vendors, which the source sends as contacts, and the users of the source."""

from __future__ import annotations

from collections.abc import Callable

from handlers.entities.base import Handler
from handlers.entities.document import Refusal, shown
from handlers.entities.kinds.items import is_active
from handlers.entities.parse import BOOLEAN, ID, INSTANT, INTEGER, LIST, NUMBER, OBJECT, PERCENT, TEXT
from handlers.entities.spec import Child, Column, Data, Table, column, columns, line_no, lines
from handlers.queue.event import EntityType

TYPE = "contact_type"


def _is_a(wanted: str) -> Callable[[Data], None]:
    """A check that `contact_type` is *wanted*. Only this key distinguishes customers from vendors.

    Every contact has keys with both names. Without this key, the stored row decides (`Handler.type_key`).
    """

    def check(record: Data) -> None:
        if TYPE not in record:
            return
        contact_type = record[TYPE]
        if contact_type is None or (isinstance(contact_type, str) and not contact_type.strip()):
            raise Refusal(TYPE, f"is blank, but must be {wanted}")
        if not isinstance(contact_type, str) or contact_type.strip().lower() != wanted:
            raise Refusal(TYPE, f"must be {wanted} for this event, not {shown(contact_type)}")

    return check


_CONTACT: tuple[Column, ...] = (
    *columns("first_name last_name mobile website language_code", TEXT),
    *columns("contact_type customer_sub_type status contact_number source", TEXT),
    *columns("currency_id", ID),
    *columns("currency_symbol", TEXT),
    *columns("exchange_rate", NUMBER),
    *columns("payment_terms_label", TEXT),
    *columns("payment_terms_id", ID),
    *columns("credit_limit", NUMBER),
    *columns("pricebook_id", ID),
    *columns("pricebook_name", TEXT),
    *columns("owner_id", ID),
    *columns("owner_name", TEXT),
    *columns("is_taxable", BOOLEAN),
    *columns("tax_id", ID),
    *columns("tax_name", TEXT),
    *columns("tax_percentage", PERCENT),
    *columns(
        "gst_no gst_treatment tax_reg_no tax_treatment vat_reg_no vat_treatment pan_no place_of_contact", TEXT
    ),
    *columns("legal_name trader_name", TEXT),
    *columns("primary_contact_id account_id", ID),
    *columns("outstanding_receivable_amount outstanding_receivable_amount_bcy", NUMBER),
    *columns("unused_credits_receivable_amount unused_credits_receivable_amount_bcy", NUMBER),
    *columns("outstanding_payable_amount outstanding_payable_amount_bcy", NUMBER),
    *columns("unused_credits_payable_amount unused_credits_payable_amount_bcy", NUMBER),
    *columns("opening_balance_amount opening_balance_amount_bcy unused_retainer_payments", NUMBER),
    *columns("outstanding_ob_receivable_amount outstanding_ob_payable_amount", NUMBER),
    *columns("credit_limit_exceeded_amount", NUMBER),
    *columns("contact_salutation country_code tax_regime sales_channel portal_status", TEXT),
    *columns("price_precision", INTEGER),
    *columns("track_1099 is_tds_registered is_linked_with_zohocrm ach_supported", BOOLEAN),
    *columns("tds_tax_id tax_exemption_id tax_authority_id", ID),
    *columns("tds_tax_name tax_exemption_code tax_authority_name", TEXT),
    *columns("addresses bank_accounts", LIST),
    *columns("designation department", TEXT),
    *columns("billing_address shipping_address", OBJECT),
    *columns("custom_fields tags", LIST),
    *columns("notes", TEXT),
    *columns("created_time last_modified_time", INSTANT),
)


def _persons(table: str, link: str) -> Child:
    return Child(
        name=table,
        link=link,
        keys=("contact_persons",),
        lines=lines,
        columns=(
            line_no(),
            *columns("contact_person_id", ID),
            *columns("salutation first_name last_name email phone mobile designation department", TEXT),
            *columns("skype fax", TEXT),
            *columns("is_primary_contact", BOOLEAN),
        ),
    )


CUSTOMER = Handler(
    entity=EntityType.CUSTOMER,
    id_keys=("contact_id", "customer_id"),
    wrappers=("contact", "contacts", "customer", "customers"),
    check=_is_a("customer"),
    type_key=TYPE,
    table=Table(
        name="customers",
        key="zoho_contact_id",
        columns=(
            column("contact_name", TEXT, "contact_name customer_name"),
            *columns("company_name email phone", TEXT),
            # Days; negative values are codes of the source (-3: due at the end of next month).
            *columns("payment_terms", INTEGER),
            *columns("currency_code", TEXT),
            column("is_active", BOOLEAN, "status is_active", take=is_active),
            *_CONTACT,
        ),
        children=(_persons("customer_contact_persons", "customer_id"),),
    ),
)

VENDOR = Handler(
    entity=EntityType.VENDOR,
    id_keys=("contact_id", "vendor_id"),
    wrappers=("contact", "contacts", "vendor", "vendors"),
    check=_is_a("vendor"),
    type_key=TYPE,
    table=Table(
        name="vendors",
        key="zoho_vendor_id",
        columns=(
            column("vendor_name", TEXT, "contact_name vendor_name"),
            *columns("company_name email phone", TEXT),
            *columns("payment_terms", INTEGER),
            *columns("currency_code", TEXT),
            column("is_active", BOOLEAN, "status is_active", take=is_active),
            *_CONTACT,
        ),
        children=(_persons("vendor_contact_persons", "vendor_id"),),
    ),
)


def _email(record: Data) -> object:
    """The email: `email` in a list, the selected one of `email_ids` in a single record."""
    email = record.get("email")
    if isinstance(email, str) and email.strip():
        return email
    addresses = [line for _, line in lines(record.get("email_ids"), record)]
    chosen = [line for line in addresses if line.get("is_selected") in (True, "true")] or addresses[:1]
    return chosen[0].get("email") if chosen else email


USER = Handler(
    entity=EntityType.USER,
    id_keys=("user_id",),
    wrappers=("user", "users"),
    # A user has no change time: its version is the time of its event.
    table=Table(
        name="zoho_users",
        key="zoho_user_id",
        columns=(
            *columns("name", TEXT),
            column("email", TEXT, "email email_ids", take=_email),
            column("role", TEXT, "user_role"),
            *columns("status user_type", TEXT),
            *columns("role_id", ID),
            *columns("is_current_user is_employee is_claimant is_accountant", BOOLEAN),
            *columns("is_customer_segmented is_vendor_segmented is_associated_for_approval", BOOLEAN),
            *columns("cost_rate billing_rate", NUMBER),
            *columns("photo_url", TEXT),
            *columns("default_branch_id", ID),
            *columns("branches custom_fields email_ids", LIST),
            *columns("created_time", INSTANT),
        ),
    ),
)
