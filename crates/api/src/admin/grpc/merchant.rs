//! `quota.v1.MerchantService`: a merchant's own view, its access tokens, and who is notified of its alerts.

use proto::quota_v1::merchant_service_server::MerchantService;

use super::routed::routed_service;

routed_service! { MerchantService:
    GET "/self" => get_self(GetSelfRequest) -> OwnView;
    POST "/access-tokens" => create_access_token(CreateAccessTokenRequest) -> CreatedToken;
    GET "/access-tokens" => list_access_tokens(ListAccessTokensRequest) -> ListAccessTokensResponse;
    DELETE "/access-tokens/{id}" => revoke_access_token(RevokeAccessTokenRequest) -> RevokeAccessTokenResponse;
    POST "/access-tokens/{id}/rotate" => rotate_access_token(RotateAccessTokenRequest) -> CreatedToken;
    GET "/merchants/{merchant_id}/settings" => get_merchant_settings(GetMerchantSettingsRequest) -> MerchantSettings;
    PUT "/merchants/{merchant_id}/settings" body settings
        => set_merchant_settings(SetMerchantSettingsRequest) -> MerchantSettings;
    POST "/merchants/{merchant_id}/settings/test"
        => test_merchant_settings(TestMerchantSettingsRequest) -> AlertMessage;
}
